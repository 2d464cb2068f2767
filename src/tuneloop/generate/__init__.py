"""From prompts (token ids) to answers: one Engine protocol and its implementations; knows nothing of metrics."""
