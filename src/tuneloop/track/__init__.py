"""What people and programs see of work under way: the console on stderr, metrics.jsonl, TensorBoard."""
