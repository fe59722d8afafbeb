"""twinkle-plugin-templates."""
