"""TOML files whose errors name a line.

``tomllib`` gives values without positions; ``line_of`` finds the line of a key in a text that ``tomllib`` has accepted. Knows
nothing of what the keys mean.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from twinkle_registry.errors import ManifestError

Key = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)(.+?)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'|#[^\n]*", re.DOTALL)


_DEEPEST = 16
"""No key that anybody looks for lies deeper; a key of a hundred thousand parts would fill the memory with its paths."""

_LONGEST_NAME = 100


def read_toml(content: bytes, source: str) -> tuple[str, dict[str, Any]]:
    """The text and the data of a TOML file.

    Raises:
        ManifestError: it isn't UTF-8 or isn't TOML; names file and line.
    """
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{source}:{line}: isn't UTF-8 text.") from None
    try:
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib's own error, numbers of too many digits, nesting without end
        place = re.search(r"line (\d+)", str(error))
        line = int(place.group(1)) if place else text.count("\n") + 1
        raise ManifestError(f"{source}:{line}: isn't valid TOML: {error}.") from None


def visible(text: str) -> str:
    """``text``, or as Python writes it in quotes where it has characters that can't be seen: a stranger may have chosen it."""
    return text if text.isprintable() else repr(text)


def unknown_key(key: str, allowed: Sequence[str]) -> str:
    """What to say of a key that isn't known."""
    near = difflib.get_close_matches(key[:_LONGEST_NAME], allowed, 1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"unknown key. {hint}Known here: {', '.join(allowed)}"


def line_of(text: str, key: Sequence[str | int]) -> int:
    """The line (from 1) where ``key`` stands, or where the innermost table around it begins, or 1.

    ``key`` is a path such as ``("component", 0, "config", "gamma")``; a number is a place in an array of tables.
    """
    lines = key_lines(text)
    path = tuple(key)
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def key_lines(text: str) -> dict[Key, int]:
    """For each key and table that begins a line, its path and its line (from 1). Keys inside of inline values aren't listed."""
    found: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    table: Key = ()
    open_until = 0
    starts = _line_starts(text)
    for number, start in enumerate(starts, 1):
        if start < open_until:
            continue
        end = starts[number] if number < len(starts) else len(text)
        line = text[start:end]
        header = _HEADER.match(line.rstrip("\n"))
        if header and not _KEY.match(line):
            table = _table(header.group(2), header.group(1) == "[[", counts)
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            path = table
            for part in _parts(key.group(1))[: _DEEPEST - len(path)]:
                path = (*path, part)
                found.setdefault(path, number)
            open_until = _value_end(text, start + key.end())
    return found


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", text))]


def _parts(dotted: str) -> list[str]:
    return [next(iter(tomllib.loads(f"{part} = 0"))) for part in _PART.findall(dotted)[:_DEEPEST]]


def _table(dotted: str, is_array: bool, counts: dict[Key, int]) -> Key:
    """The path of a header; each array of tables on the way contributes the place of its latest entry."""
    path: Key = ()
    parts = _parts(dotted)
    for place, part in enumerate(parts):
        path = (*path, part)
        if is_array and place == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _value_end(text: str, start: int) -> int:
    """Where the value that begins at ``start`` ends: the first line end outside of strings and brackets."""
    depth, place = 0, start
    while place < len(text):
        string = _STRING.match(text, place)
        if string:
            place = string.end()
            continue
        character = text[place]
        depth += (character in "[{") - (character in "]}")
        place += 1
        if character == "\n" and depth <= 0:
            return place
    return place
