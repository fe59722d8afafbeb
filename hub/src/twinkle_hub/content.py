"""The files of a folder that are to be published: which, how large, and whether they are still as they were.

What tools leave behind is no content. Knows nothing of hubs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twinkle_hub.errors import HubError, RepositoryNotFoundError
from twinkle_hub.patterns import matching

NO_CONTENT = frozenset({".git", ".cache", "__pycache__", ".ms_upload_cache"})
"""What tools leave in a folder and nobody means to publish; it would change the digest with every use."""


def files_of(folder: Path, repository: Path) -> list[str]:
    """The files below ``folder``, relative and sorted; symlinks may point to whatever is inside ``repository``.

    A symlinked folder isn't followed: its files are listed where they are.

    Raises:
        HubError: a symlink leads out of the repository or nowhere, or there is a special file.
    """
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in NO_CONTENT]
        names = [name for name in names if name not in NO_CONTENT]
        for name in (*folders, *names):
            path = Path(base, name)
            if path.is_symlink():
                inside(path, repository)
            if not path.is_dir() and not path.is_file():
                raise HubError(f"{path} is a broken symlink or a special file; a repository holds only files. Remove it.")
        found += [Path(base, name).relative_to(folder).as_posix() for name in names]
    return sorted(found)


def inside(path: Path, repository: Path) -> Path:
    """``path``, if following its symlinks doesn't lead out of ``repository``.

    Raises:
        HubError: it does.
    """
    if not path.resolve().is_relative_to(repository.resolve()):
        raise HubError(f"{path} is a symlink that leads out of its repository ({repository}). Replace it by a copy.")
    return path


@dataclass(frozen=True)
class Content:
    """The files of ``folder`` that are to be published.

    Attributes:
        paths: relative, with ``/``, sorted.
        sizes: path to size in bytes.
    """

    folder: Path
    paths: tuple[str, ...]
    sizes: dict[str, int]
    _stamps: dict[str, tuple[int, int, int]]

    @classmethod
    def of(cls, folder: Path, allow_patterns: Sequence[str] | None = None, ignore_patterns: Sequence[str] | None = None) -> Content:
        """The files of ``folder`` that match.

        Raises:
            HubError: the folder isn't there, nothing in it matches, or it holds symlinks that lead out of it or special files.
        """
        if not folder.is_dir():
            raise RepositoryNotFoundError(
                f"There is no folder {folder}, so it can't be published (working directory: {Path.cwd()})."
            )
        paths = tuple(matching(files_of(folder, folder), allow_patterns, ignore_patterns))
        if not paths:
            asked = "" if allow_patterns is None and not ignore_patterns else " that matches the patterns"
            raise HubError(f"There is no file{asked} in {folder}: nothing to publish.")
        stamps = {path: _stamp(folder / path) for path in paths}
        return cls(folder, paths, {path: stamp[0] for path, stamp in stamps.items()}, stamps)

    @property
    def total_bytes(self) -> int:
        """The size of all the files."""
        return sum(self.sizes.values())

    def check_unchanged(self) -> None:
        """Check that the files are still the ones that they were when this was made.

        Raises:
            HubError: one was replaced, changed or removed meanwhile, so that a mixture may have been sent.
        """
        for path, stamp in self._stamps.items():
            try:
                now = _stamp(self.folder / path)
            except OSError:
                now = None
            if now != stamp:
                raise HubError(f"{self.folder / path} changed while the folder was being published. Publish it again.")


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
