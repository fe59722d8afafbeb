"""The content-addressed store of components from hubs: ``$TWINKLE_HOME/components/``.

``sha256/<digest>/`` holds the files of one repository, read-only: it is copied in whole and appears at once, or not at all; what is
read out is hashed first. ``sources/`` remembers where digests came from, ``locks/`` lets one process fetch while the others wait.
Knows nothing of trust or importing, and of hubs only their names.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from twinkle_hub.digest import digest_of
from twinkle_registry.discovery import MANIFEST
from twinkle_registry.errors import PluginLoadError
from twinkle_registry.folder_use import FolderUse, remove_tree
from twinkle_registry.limits import VARIABLES, Limits, check_files

_OF_THE_PLATFORM = frozenset({"README.md", "configuration.json"})
"""Files at the root that hubs make or change on their own; hidden files are theirs, too. They aren't part of a component."""

_USE_NOTED_S = 3600.0
"""How exact the time of the last use is: noting it at every load would write to the disk at every load."""


@dataclass(frozen=True)
class StoredRepository:
    """A repository's component files, verified. While this object lives, garbage collection leaves them where they are.

    Attributes:
        digest: the SHA-256 (64 hex digits) of the files, as in ``twinkle_hub.digest``.
        folder: where they lie.
        sources: the Python files and the manifest: relative path to content. These bytes were hashed, and these are executed.
        sizes: every file: relative path to size in bytes.
    """

    digest: str
    folder: Path
    sources: dict[str, bytes]
    sizes: dict[str, int] = field(default_factory=dict)
    _use: FolderUse | None = field(default=None, repr=False, compare=False)


class Source(NamedTuple):
    """Where a digest was fetched: the repository with its scheme (``hf://acme/focal``), and the commit."""

    repository: str
    commit: str | None


class ComponentStore:
    """The component files of repositories, by digest.

    Args:
        home: Twinkle's folder.
        limits: what a component may hold (default: from the environment, when the first one is added).
    """

    def __init__(self, home: Path, limits: Limits | None = None) -> None:
        self._root = home / "components"
        self._folder = self._root / "sha256"
        self._limits = limits

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and (self._folder / digest).is_dir()

    def add(self, folder: Path) -> str:
        """Copy the component files of the repository in ``folder``; return their digest.

        Raises:
            PluginLoadError: there is a symlink or a special file among them, they don't keep the limits
                (``twinkle_registry.limits``), or the store can't be written.
            ConfigError: the environment's limits can't be read.
        """
        limits = self._limits or Limits.from_environment()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            files = _component_sizes(folder, limits)
            check_files(files, str(folder), limits)
            temporary = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
        except OSError as error:
            raise PluginLoadError(f"{self._folder} can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error
        with FolderUse(temporary):  # what a killed process leaves nobody uses, and garbage collection removes it
            try:
                digest = _copied(folder, files, temporary, limits)
                target = self._folder / digest
                try:
                    temporary.rename(target)
                except OSError:
                    if not target.is_dir():  # else another process was faster, with the same files
                        raise
                return digest
            except OSError as error:
                raise PluginLoadError(f"{folder} can't be copied to {self._folder}: {error}. Run the same again.") from error
            finally:
                remove_tree(temporary)

    def read(self, digest: str) -> StoredRepository:
        """The files under ``digest``, hashed again.

        Raises:
            PluginLoadError: there are none, or they aren't what they were; damaged ones are removed, so that the next time
                fetches them anew.
        """
        folder = self._folder / digest
        use = FolderUse(folder)
        if not use.there:
            raise PluginLoadError(
                f"The store has no component with the digest sha256:{digest} ({self._folder}). Load its reference."
            )
        try:
            found, sources, sizes = _hashed(folder)
        except PluginLoadError:  # a symlink, where only files were put
            found, sources, sizes = "", {}, {}
        except OSError as error:
            raise PluginLoadError(f"The files in {folder} can't be read: {error}. Run the same again.") from error
        if found != digest:
            use.close()
            self._discard(folder)
            raise PluginLoadError(f"The files in {folder} were changed or damaged, and have been removed. Run the same again.")
        _note_use(folder)
        return StoredRepository(digest, folder, sources, sizes, use)

    def _discard(self, folder: Path) -> None:
        """Remove ``folder``, at once as it came: no other process ever sees half of it under its digest."""
        with suppress(OSError):
            aside = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
            with FolderUse(aside):
                with suppress(OSError):
                    folder.chmod(0o755)  # to move a folder is to write in it, to its ".."
                    folder.rename(aside / folder.name)
                remove_tree(aside)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock called ``name``: of several processes, one fetches while the others wait."""
        from filelock import FileLock

        locks = self._root / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PluginLoadError(f"{locks} can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error
        with FileLock(locks / f"{_short(name)}.lock"):
            yield

    def record_source(self, digest: str, repository: str, commit: str | None) -> None:
        """Remember that ``repository`` (with its scheme) had the files of ``digest`` at ``commit``.

        The record survives the files: a damaged or collected digest can be fetched again from where it came.

        Raises:
            PluginLoadError: the store can't be written.
        """
        file = self._source_file(repository, commit)
        record = {"commit": commit, "digest": digest, "repository": repository}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".", dir=file.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(record, stream, sort_keys=True)
            Path(name).replace(file)
        except OSError as error:
            raise PluginLoadError(f"{file} can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error

    def sources(self, digest: str) -> list[Source]:
        """Where the files of ``digest`` were fetched, sorted; records that can't be read are passed over."""
        found = []
        for file in (self._root / "sources").glob("*.json"):
            record = _record(file)
            if record is not None and record[0] == digest:
                found.append(record[1])
        return sorted(found, key=lambda source: (source.repository, source.commit or ""))

    def digest_at(self, repository: str, commit: str) -> str | None:
        """The digest that ``repository`` was recorded to have at ``commit``, if its files are still in the store.

        A commit never changes, so what was fetched for it needn't be fetched again.
        """
        record = _record(self._source_file(repository, commit))
        if record is None or record[1] != Source(repository, commit) or record[0] not in self:
            return None
        return record[0]

    def _source_file(self, repository: str, commit: str | None) -> Path:
        return self._root / "sources" / f"{_short(f'{repository}@{commit}')}.json"


def component_files(folder: Path) -> list[str]:
    """The relative paths of the component files of the repository in ``folder``, sorted.

    Left out are what hubs make (hidden files, ``README.md`` and ``configuration.json`` at the root) and ``__pycache__``.

    Raises:
        PluginLoadError: there is a symlink or a special file among them, or more than the limits allow. The links of Hugging Face's
            cache, from a snapshot to its blobs, aren't the repository's and are followed.
        ConfigError: the environment's limits can't be read.
    """
    return sorted(_component_sizes(folder, Limits.from_environment()))


def _component_sizes(folder: Path, limits: Limits) -> dict[str, int]:
    """The component files of the repository in ``folder``: relative path to size in bytes."""
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None
    sizes: dict[str, int] = {}
    for name, entry in _walk(folder, limits, _is_left_out):
        if blobs is not None and entry.is_symlink() and Path(entry.path).resolve().parent == blobs.resolve():
            sizes[name] = entry.stat().st_size
        elif entry.is_file(follow_symlinks=False):
            sizes[name] = entry.stat(follow_symlinks=False).st_size
        else:
            raise _special(entry.path)
    return sizes


def _is_left_out(name: str, entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name == "__pycache__" or name in _OF_THE_PLATFORM


def _special(path: str) -> PluginLoadError:
    return PluginLoadError(
        f"{path} is a symlink or a special file, and a component's repository may hold only files and folders. "
        "Its author has to replace it by a copy."
    )


def _walk(
    folder: Path, limits: Limits | None, left_out: Callable[[str, os.DirEntry[str]], bool]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What lies below ``folder`` and is no folder: relative path with ``/`` and entry. Symlinks aren't followed.

    With ``limits`` it stops at a folder that is too deep or too full, rather than walk forever.
    """
    pending = [(os.fspath(folder), "")]
    seen = 0
    while pending:
        base, prefix = pending.pop()
        with os.scandir(base) as entries:
            for entry in entries:
                name = prefix + entry.name
                if left_out(name, entry):
                    continue
                seen += 1
                if limits and (seen > 2 * limits.files or prefix.count("/") >= limits.depth):
                    raise PluginLoadError(
                        f"{folder} holds more than a component may: {limits.files:,} files ({VARIABLES['files']}), "
                        f"{limits.depth} folders deep ({VARIABLES['depth']}). Is it the right folder?"
                    )
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{name}/"))
                else:
                    yield name, entry


def _copied(folder: Path, files: Iterable[str], target: Path, limits: Limits) -> str:
    """Copy ``files`` of ``folder`` to ``target``, read-only; return the digest of the bytes that were written."""
    hashes = {}
    folders = {target}
    for path in files:
        content = _content(folder / path, limits)
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        folders.update(parent for parent in copy.parents if parent.is_relative_to(target))
        copy.write_bytes(content)
        copy.chmod(0o444)
        hashes[path] = sha256(content).hexdigest()
    for made in folders:
        made.chmod(0o555)  # for everybody: a cache may be shared, and mkdtemp's folders are for one user only
    return digest_of(hashes)


def _content(file: Path, limits: Limits) -> bytes:
    """What is in ``file``, which was listed before: checked again on the open file, whatever took its place since."""
    if file.is_symlink():  # of Hugging Face's cache, or the listing would have refused it
        file = file.resolve()
    with open(file, "rb", opener=_open_plain) as stream:
        content = stream.read(limits.file_bytes + 1)
    if len(content) > limits.file_bytes:
        raise PluginLoadError(f"{file} grew beyond {limits.file_bytes:,} bytes ({VARIABLES['file_bytes']}) while it was copied.")
    return content


def _open_plain(path: str, flags: int) -> int:
    # Not blocking: opening a pipe would wait for a writer.
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _special(path)
    return descriptor


_CHUNK = 2**16


def _read_plain(path: str) -> bytes:
    """What is in the file ``path``, which is no symlink; three system calls where it is small, a third of what ``open`` takes."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    try:
        chunk = os.read(descriptor, _CHUNK)
        if len(chunk) < _CHUNK:
            return chunk
        chunks = [chunk]
        while chunk := os.read(descriptor, _CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def _hashed(folder: Path) -> tuple[str, dict[str, bytes], dict[str, int]]:
    """The digest of the files in ``folder``, the sources among them (the very bytes that were hashed), and every file's size."""
    hashes, sources, sizes = {}, {}, {}
    for path, entry in _walk(folder, None, lambda _, entry: entry.name == "__pycache__"):
        if not entry.is_file(follow_symlinks=False):
            raise _special(entry.path)
        content = _read_plain(entry.path)
        if path.endswith(".py") or path == MANIFEST:
            sources[path] = content
        hashes[path] = sha256(content).hexdigest()
        sizes[path] = len(content)
    return digest_of(hashes), sources, sizes


def _note_use(folder: Path) -> None:
    with suppress(OSError):  # a store that is read-only for this user is never collected by this user
        if time.time() - folder.stat().st_mtime > _USE_NOTED_S:
            os.utime(folder)


def _record(file: Path) -> tuple[str, Source] | None:
    try:
        record = json.loads(file.read_bytes())
        digest, repository, commit = record["digest"], record["repository"], record["commit"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not (isinstance(digest, str) and isinstance(repository, str) and isinstance(commit, str | None)):
        return None
    return digest, Source(repository, commit)


def _short(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:32]
