"""Moving bytes from one stream to another."""
