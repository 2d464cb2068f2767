"""Measures a base and a tuned model on the same examples and writes the report; knows nothing of training."""
