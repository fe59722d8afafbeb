"""Chat templates for Twinkle: messages to tokens and labels, and back."""
