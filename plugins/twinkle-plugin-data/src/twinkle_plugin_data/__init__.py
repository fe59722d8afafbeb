"""twinkle-plugin-data."""
