"""What rows say, for cleaning and evaluation alike: counting words, safe expressions; knows nothing of files."""
