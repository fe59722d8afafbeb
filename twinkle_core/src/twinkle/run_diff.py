"""What changed between two runs, in words.

Compares two bills of materials (``twinkle.run_record``) and lists what differs, each as a subject with its value before and after.
Knows nothing of where they come from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_NOTHING = "nothing"
_LONG_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")


@dataclass(frozen=True)
class Difference:
    """One thing that differs: what it is, and its value before and after (None: there is none)."""

    subject: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.subject}: {_shown(self.before)} -> {_shown(self.after)}"

    def as_plain(self) -> dict[str, Any]:
        """As plain data, with the sentence as ``message``."""
        return {**asdict(self), "message": str(self)}


def diff_runs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Everything in which ``after`` differs from ``before``, the most telling first: model, components, data, run, packages."""
    return [
        *diff_tables("model", before["model"], after["model"]),
        *diff_rows(before["components"], after["components"]),
        *diff_rows(before["repositories"], after["repositories"]),
        *diff_tables("", before["run"], after["run"]),
        *diff_tables("script", before.get("script") or {}, after.get("script") or {}),
        *diff_tables("package", before["packages"], after["packages"]),
    ]


def diff_tables(subject: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    """The keys whose values differ; those of tables in tables with dots between."""
    theirs, ours = _flat(before), _flat(after)
    for key in dict.fromkeys([*theirs, *ours]):
        if theirs.get(key) != ours.get(key):
            yield Difference(f"{subject} {key}".strip(), theirs.get(key), ours.get(key))


def diff_rows(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Difference]:
    """The rows that were added, left out, replaced by another of their kind, or changed."""
    for kind in dict.fromkeys(row["kind"] for row in (*before, *after)):
        ours, theirs = ([dict(row) for row in rows if row["kind"] == kind] for rows in (after, before))
        for left, right in _pairs(theirs, ours):
            yield from _row_differences(kind, left, right)


def name_of(row: Mapping[str, Any]) -> str:
    """What people call a component, model or data set of a bill of materials: its reference, else its class."""
    name = row.get("reference") or str(row.get("source", {}).get("entry", "")).rpartition(":")[2]
    source = row.get("source", {})
    if source.get("distribution") and "/" not in name:
        return f"{name} ({source['distribution']} {source['version']})"
    return str(name)


def _row_differences(kind: str, left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> Iterator[Difference]:
    if left is None or right is None or _short_name(left) != _short_name(right):
        yield Difference(kind, left and name_of(left), right and name_of(right))
        return
    subject = f"{kind} {_short_name(right)}"
    for change in diff_tables(subject, left, right):
        # The same facts under shorter names: a component's configuration is what people ask for.
        yield Difference(change.subject.replace(f"{subject} config.", f"{subject} ", 1), change.before, change.after)


def _short_name(row: Mapping[str, Any]) -> str:
    return str(row.get("reference") or str(row.get("source", {}).get("entry", "")).rpartition(":")[2])


def _pairs(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Rows that belong together: equal ones left out, then those of one name, then what is left, in order."""
    same = [row for row in before if row in after]
    left, right = [row for row in before if row not in same], [row for row in after if row not in same]
    for row in list(left):
        match = next((other for other in right if _short_name(other) == _short_name(row)), None)
        if match is not None:
            left.remove(row)
            right.remove(match)
            yield row, match
    for number in range(max(len(left), len(right))):
        yield (left[number] if number < len(left) else None), (right[number] if number < len(right) else None)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _shown(value: Any) -> str:
    if value is None:
        return _NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = _LONG_HASH.sub(r"\1…", text)
    return text if len(text) <= 160 else f"{text[:157]}…"
