"""What may not stand in data or answers: rules that find it, and ways to hide it. Knows no rows, files or models."""
