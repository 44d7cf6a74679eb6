"""Endings that lose nothing, and their reports."""
