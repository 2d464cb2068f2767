"""Conversations to ids and loss weights, one way for training, evaluation and serving; knows no models or files."""
