"""What is cached of a ModelScope repository, by commit.

Beside the client's ``snapshots/`` it keeps ``refs/<revision>`` (a commit) and ``trees/<commit>.json`` (path to size in bytes), so
that a snapshot never changes and an interrupted download is no cached one. Knows nothing of the network.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from twinkle_hub.patterns import matching


class RepositoryCache:
    """The cache of the repository whose folder is ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, commit: str) -> Path:
        """The snapshot of ``commit``; it may not be there, or not be complete."""
        return self._root / "snapshots" / commit

    def commit(self, revision: str) -> str | None:
        """The commit that ``revision`` was at when it was last downloaded, or ``None``."""
        if self._tree(revision).is_file():
            return revision
        reference = self._root / "refs" / revision
        return reference.read_text(encoding="utf-8") if reference.is_file() else None

    def snapshot(self, revision: str, allow_patterns: Sequence[str] | None, ignore_patterns: Sequence[str] | None) -> Path | None:
        """The folder of ``revision``, or ``None`` where a file that matches isn't in it."""
        commit = self.commit(revision)
        if commit is None:
            return None
        sizes: dict[str, int] = json.loads(self._tree(commit).read_text(encoding="utf-8"))
        return None if self._missing(commit, sizes, matching(sizes, allow_patterns, ignore_patterns)) else self.folder(commit)

    def add_tree(self, commit: str, sizes: Mapping[str, int], wanted: Iterable[str]) -> list[str]:
        """Note which files ``commit`` has, make its folder, and return those of ``wanted`` that aren't there yet."""
        _write(self._tree(commit), json.dumps(dict(sizes)))
        self.folder(commit).mkdir(parents=True, exist_ok=True)
        return self._missing(commit, sizes, wanted)

    def add_reference(self, revision: str, commit: str) -> None:
        """Note that ``revision`` is at ``commit``."""
        if revision != commit:
            _write(self._root / "refs" / revision, commit)

    def _tree(self, commit: str) -> Path:
        return self._root / "trees" / f"{commit}.json"

    def _missing(self, commit: str, sizes: Mapping[str, int], wanted: Iterable[str]) -> list[str]:
        # The client renames a file into its place once its hash is right: what is there, with that size, is whole.
        folder = self.folder(commit)
        return [path for path in wanted if not (folder / path).is_file() or (folder / path).stat().st_size != sizes[path]]


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as stream:
        stream.write(text)
    Path(stream.name).replace(file)
