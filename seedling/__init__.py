"""What the tiny base model "seedling" is made from: its text, probes, tokenizer and the demo data set."""
