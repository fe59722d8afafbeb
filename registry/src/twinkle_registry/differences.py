"""What changed between two versions of a repository's files.

Line by line for text, by content for everything else. Knows nothing of hubs: it is given two folders and the files that count.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MAX_BYTES = 1_000_000
"""Longer files are compared by content only: comparing lines takes time that grows with the square of their number."""


@dataclass(frozen=True)
class FileDifference:
    """One file that isn't the same in both versions.

    Attributes:
        path: relative, with ``/``.
        change: what happened to it.
        diff: a unified diff, ending in a line feed; empty for files that aren't text, or are too long.
    """

    path: str
    change: Literal["added", "removed", "changed"]
    diff: str


def differences(before: Path, before_paths: Iterable[str], after: Path, after_paths: Iterable[str]) -> list[FileDifference]:
    """The files that differ between the folders ``before`` and ``after``, by path.

    Args:
        before: the older version's folder.
        before_paths: the files in it that count, relative.
        after: the newer version's folder.
        after_paths: the files in it that count, relative.

    Raises:
        OSError: a file can't be read.
    """
    old, new = set(before_paths), set(after_paths)
    found = []
    for path in sorted(old | new):
        left = (before / path).read_bytes() if path in old else None
        right = (after / path).read_bytes() if path in new else None
        if left != right:
            change: Literal["added", "removed", "changed"] = "added" if left is None else "removed" if right is None else "changed"
            found.append(FileDifference(path, change, _unified(path, left, right)))
    return found


def _unified(path: str, left: bytes | None, right: bytes | None) -> str:
    old, new = _lines(left), _lines(right)
    if old is None or new is None:
        return ""
    from_name = "/dev/null" if left is None else f"a/{path}"
    to_name = "/dev/null" if right is None else f"b/{path}"
    lines = []
    for line in difflib.unified_diff(old, new, from_name, to_name):
        lines.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(lines)


def _lines(content: bytes | None) -> list[str] | None:
    """The lines with their ends; ``None`` where it isn't text, or too long."""
    if content is None:
        return []
    if len(content) > MAX_BYTES or b"\0" in content:
        return None
    try:
        # Not splitlines(): it also splits at characters that aren't line ends in a file.
        return [f"{line}\n" for line in text.split("\n")[:-1]] + _rest(text) if (text := content.decode()) else []
    except UnicodeDecodeError:
        return None


def _rest(text: str) -> list[str]:
    last = text.rpartition("\n")[2]
    return [last] if last else []
