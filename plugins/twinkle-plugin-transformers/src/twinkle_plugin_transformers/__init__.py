"""twinkle-plugin-transformers."""
