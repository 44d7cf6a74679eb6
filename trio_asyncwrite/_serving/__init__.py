"""Servers that can be drained."""
