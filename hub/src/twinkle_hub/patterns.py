"""Which files of a repository are asked for: allow and ignore patterns, the same for every hub.

``fnmatch`` on the whole relative path, case-sensitive (``*`` crosses ``/``); a pattern that ends in ``/`` means everything below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matching(paths: Iterable[str], allow_patterns: Sequence[str] | None, ignore_patterns: Sequence[str] | None) -> list[str]:
    """The ``paths`` that match an allowed pattern (``None``: all of them do) and no ignored one, in their order."""
    return [
        path for path in paths if (allow_patterns is None or _any(path, allow_patterns)) and not _any(path, ignore_patterns or ())
    ]


def _any(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
