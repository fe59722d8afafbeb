"""Text of strangers for a terminal: names, messages and files from repositories, which may hold escape codes.

Knows nothing of who prints it.
"""

from __future__ import annotations


def visible(text: str) -> str:
    """``text`` whose control characters and changes of direction are shown as Python writes them; lines and tabs stay."""
    return "".join(character if character in "\n\t" or character.isprintable() else ascii(character)[1:-1] for character in text)
