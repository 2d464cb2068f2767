"""Rendered examples through a model without padding, to the loss of supervised positions only.

Shared by training, validation and perplexity, so that all of them measure the same thing.
"""
