"""twinkle-plugin-tiny."""
