"""twinkle-plugin-losses."""
