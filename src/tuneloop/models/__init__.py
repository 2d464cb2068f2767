"""Models on disk and in memory: find, check, load, save, adapt, merge, and "will it fit?".

Knows nothing of data, training or evaluation. Refuses custom code and pickle everywhere.
"""
