"""The tuning stage: rendered examples and a model → a tuned model or adapter, with its curves and checkpoints."""
