"""What the source of a component does, as far as reading it can tell: a lint for the person who decides, no wall.

``scan`` reads Python source with ``ast``; it imports and executes none of it. Knows nothing of trust: findings are shown, and a
rule may ask for more care because of one, but that there are none proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twinkle_registry._scan_module import ScanFinding, findings_in
from twinkle_registry._scan_rules import MAX_FILE_BYTES, MAX_TOTAL_BYTES, NATIVE_SUFFIXES

__all__ = ["ScanFinding", "capabilities", "scan"]


def capabilities(findings: Iterable[ScanFinding]) -> tuple[str, ...]:
    """The capabilities of ``findings``, sorted, each once."""
    return tuple(sorted({finding.capability for finding in findings}))


def scan(sources: Mapping[str, bytes]) -> list[ScanFinding]:
    """What ``sources`` (relative path to content) can do, by file and line, each thing once a line.

    Source that can't be read is a finding, never an error; and so is source that is too large, which isn't read.
    """
    found: set[ScanFinding] = set()
    total = 0
    for path, content in sorted(sources.items()):
        if path.lower().endswith(NATIVE_SUFFIXES):
            found.add(ScanFinding(path, 1, "native-file", "native", "is compiled code, which can't be read here"))
        if not path.endswith(".py"):
            continue
        total += len(content)
        if len(content) > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES:
            message = f"is too large to be read: {len(content):,} bytes in a component of {total:,} or more"
            found.add(ScanFinding(path, 1, "too-large", "hidden", message))
            continue
        found.update(findings_in(path, content))
    return sorted(found)
