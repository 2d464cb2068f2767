"""The shapes and the ground rules; knows nothing of models, stages or pages."""
