"""Garbage collection of the store: what nothing needs any more is removed, whole.

Kept is what the caller names (pinned, trusted, part of a run), what a process uses now, and what was used lately. Knows nothing of
locks, policies or runs; leaves the records of where digests came from, by which they can be fetched again.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from twinkle_registry.folder_use import FolderUse, in_use, remove_tree, take_away

_DIGEST = re.compile(r"[0-9a-f]{64}")

GRACE_S = 60.0
"""What was added or used within this time is kept in every case: a process that made sure of it may not have opened it yet."""


class Kept(NamedTuple):
    """A digest that stays, and why."""

    digest: str
    why: str


@dataclass(frozen=True)
class Collected:
    """What garbage collection did, or would do.

    Attributes:
        removed: the digests whose files are gone, sorted.
        kept: those that stay, sorted.
        leftovers: how many unfinished folders and files of processes that were killed are gone.
        bytes: the size of all that is gone.
    """

    removed: tuple[str, ...]
    kept: tuple[Kept, ...]
    leftovers: int
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {**asdict(self), "kept": [kept._asdict() for kept in self.kept]}


def collect(home: Path, keep: Collection[str], *, older_than_s: float, dry_run: bool = False) -> Collected:
    """Remove the components in the store of ``home`` that nothing needs.

    Args:
        home: Twinkle's folder.
        keep: digests (64 hex digits) that stay whatever their age.
        older_than_s: seconds since the last use, exact to an hour, for which the others stay; at least ``GRACE_S`` is kept.
        dry_run: only say what would be removed.
    """
    store = home / "components" / "sha256"
    removed: list[str] = []
    kept: list[Kept] = []
    leftovers = size = 0
    for folder in _folders(store):
        if not _DIGEST.fullmatch(folder.name):
            if not _younger(folder, GRACE_S) and (gone := _remove(folder, store, dry_run)):
                leftovers, size = leftovers + 1, size + gone.size
        elif folder.name in keep:
            kept.append(Kept(folder.name, "needed"))
        elif _younger(folder, max(older_than_s, GRACE_S)):
            kept.append(Kept(folder.name, "used lately"))
        elif gone := _remove(folder, store, dry_run):
            removed.append(folder.name)
            size += gone.size
        elif folder.is_dir():
            kept.append(Kept(folder.name, "in use"))
    for file in (home / "components" / "sources").glob(".*"):
        if not _younger(file, GRACE_S):
            leftovers += 1
            if not dry_run:
                file.unlink(missing_ok=True)
    return Collected(tuple(removed), tuple(kept), leftovers, size)


def _folders(store: Path) -> Iterator[Path]:
    try:
        with os.scandir(store) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return
    # Only what this store makes: digests, and the hidden folders in which they are prepared.
    yield from (store / name for name in names if _DIGEST.fullmatch(name) or name.startswith("."))


def _younger(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime < seconds
    except FileNotFoundError:  # somebody else has removed it
        return False


class _Gone(NamedTuple):
    size: int


def _remove(folder: Path, store: Path, dry_run: bool) -> _Gone | None:
    """Remove ``folder`` unless it is in use: at once, so that nobody ever finds half of it under its name."""
    size = sum(file.stat(follow_symlinks=False).st_size for file in _files(folder))
    if dry_run:
        return None if in_use(folder) else _Gone(size)
    try:
        aside = Path(tempfile.mkdtemp(prefix=".", dir=store))
    except OSError:
        return None
    with FolderUse(aside):
        moved = take_away(folder, aside / "gone")
        remove_tree(aside)
    return _Gone(size) if moved else None


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    pending = [os.fspath(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        yield entry
        except FileNotFoundError:  # somebody else is removing it
            continue
