"""Metrics for Twinkle; each is a component that ``twinkle.toml`` beside this file describes."""
