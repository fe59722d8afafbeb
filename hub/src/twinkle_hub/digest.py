"""The digest of a set of files: what is in them and what they are called, and nothing else.

SHA-256 over the sorted lines ``path NUL sha256 LF``, paths relative with ``/``, in UTF-8, sorted as bytes. The same files have the
same digest on every hub. Knows nothing of hubs; times, owners and permissions don't count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from twinkle_hub.errors import HubError


def digest_of(files: Mapping[str, str]) -> str:
    """The digest (64 hex digits) of ``files``: relative path to the SHA-256 (64 hex digits) of the content."""
    lines = sorted(path.encode() + b"\0" + sha256.lower().encode() + b"\n" for path, sha256 in files.items())
    return hashlib.sha256(b"".join(lines)).hexdigest()


def digest_of_bytes(files: Mapping[str, bytes]) -> str:
    """The digest of files that are in memory: relative path to content."""
    return digest_of({path: hashlib.sha256(content).hexdigest() for path, content in files.items()})


def sha256_of(file: Path) -> str:
    """The SHA-256 (64 hex digits) of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of_folder(folder: Path, paths: Iterable[str] | None = None) -> str:
    """The digest of ``paths`` (default: every file) in ``folder``.

    Raises:
        HubError: there is a symlink or a special file among them.
    """
    return digest_of({path: sha256_of(folder / path) for path in (files_in(folder) if paths is None else paths)})


def files_in(folder: Path) -> list[str]:
    """The relative paths of all files below ``folder``, sorted, with ``/``; hidden ones too.

    Raises:
        HubError: there is a symlink or a special file: what it stands for could change, or lie elsewhere.
    """
    found = []
    pending = [(os.fspath(folder), "")]
    while pending:
        base, prefix = pending.pop()
        with os.scandir(base) as entries:  # which says what each entry is without asking for it again
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_file(follow_symlinks=False):
                    found.append(prefix + entry.name)
                else:
                    raise HubError(
                        f"{entry.path} is a symlink or a special file; a repository holds only files and folders. "
                        f"Replace it by a copy."
                    )
    return sorted(found)
