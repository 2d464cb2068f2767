"""Pages for people, in NiceGUI on the server's own app; they call what the API calls and know nothing of models."""
