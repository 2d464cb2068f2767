"""The stage that answers people: an OpenAI-compatible HTTP service over a LiveEngine. Knows no model, no training."""
