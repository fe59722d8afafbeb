"""twinkle-plugin-metrics."""
