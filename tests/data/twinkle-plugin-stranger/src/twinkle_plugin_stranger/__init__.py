"""Somebody else's plugin."""
