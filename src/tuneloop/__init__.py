"""tuneloop: from raw domain data and an open model to a tuned model that you can trust, and keep improving."""

__version__ = "0.1.0"
