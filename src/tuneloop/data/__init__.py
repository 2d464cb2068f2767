"""The first stage: raw files become checked, split Examples, and every row is accounted for."""
