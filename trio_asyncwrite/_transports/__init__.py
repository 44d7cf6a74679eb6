"""Innermost writers: where bytes leave the process."""
