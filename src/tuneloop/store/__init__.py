"""What was answered, to whom, by which version, and what people said of it: SQLite by default, PostgreSQL by URL.

Also API keys and the audit log. Knows no HTTP, no models and no pages: `store.open` gives all of it.
"""
