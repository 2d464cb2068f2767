"""The only room that knows several stages; each flow is read top to bottom."""
