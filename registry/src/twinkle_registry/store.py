"""The content-addressed store of components from hubs: ``$TWINKLE_HOME/components/sha256/<digest>/``.

A folder is copied in whole and appears under its digest at once, or not at all; what is read out is hashed first. Knows nothing of
hubs, trust or importing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from twinkle_hub.digest import digest_of, files_in, sha256_of
from twinkle_hub.errors import HubError
from twinkle_registry.discovery import MANIFEST
from twinkle_registry.errors import PluginLoadError

_OF_THE_PLATFORM = frozenset({"README.md", "configuration.json"})
"""Files at the root that hubs make or change on their own; hidden files are theirs, too. They aren't part of a component."""


@dataclass(frozen=True)
class StoredRepository:
    """A repository's component files, verified.

    Attributes:
        digest: the SHA-256 (64 hex digits) of the files, as in ``twinkle_hub.digest``.
        folder: where they lie.
        sources: the Python files and the manifest: relative path to content. These bytes were hashed, and these are executed.
    """

    digest: str
    folder: Path
    sources: dict[str, bytes]


class ComponentStore:
    """The component files of repositories, by digest.

    Args:
        home: Twinkle's folder.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "components" / "sha256"

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and (self._folder / digest).is_dir()

    def add(self, folder: Path) -> str:
        """Copy the component files of the repository in ``folder``; return their digest.

        Raises:
            PluginLoadError: there is a symlink or a special file among them, or the store can't be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
        except OSError as error:
            raise PluginLoadError(f"{self._folder} can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error
        try:
            temporary.chmod(0o755)  # mkdtemp's folders are for one user only; a cache may be shared
            for path in component_files(folder):
                target = temporary / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / path, target)
            digest = digest_of({path: sha256_of(temporary / path) for path in files_in(temporary)})
            target = self._folder / digest
            try:
                temporary.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster, with the same files
                    raise
            return digest
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def read(self, digest: str) -> StoredRepository:
        """The files under ``digest``, hashed again.

        Raises:
            PluginLoadError: there are none, or they aren't what they were; damaged ones are removed, so that the next time
                fetches them anew.
        """
        folder = self._folder / digest
        if not folder.is_dir():
            raise PluginLoadError(
                f"The store has no component with the digest sha256:{digest} ({self._folder}). Load its reference."
            )
        try:
            found, sources = _hashed(folder)
        except HubError:  # a symlink, where only files were put
            found, sources = "", {}
        except OSError as error:
            raise PluginLoadError(f"The files in {folder} can't be read: {error}. Run the same again.") from error
        if found != digest:
            self._discard(folder)
            raise PluginLoadError(f"The files in {folder} were changed or damaged, and have been removed. Run the same again.")
        return StoredRepository(digest, folder, sources)

    def _discard(self, folder: Path) -> None:
        """Remove ``folder``, at once as it came: no other process ever sees half of it under its digest."""
        with suppress(OSError), tempfile.TemporaryDirectory(prefix=".", dir=self._folder, ignore_cleanup_errors=True) as aside:
            folder.rename(Path(aside, folder.name))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock called ``name``: of several processes, one fetches while the others wait."""
        from filelock import FileLock

        locks = self._folder.parent / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PluginLoadError(f"{locks} can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error
        with FileLock(locks / f"{sha256(name.encode()).hexdigest()[:32]}.lock"):
            yield


def _hashed(folder: Path) -> tuple[str, dict[str, bytes]]:
    """The digest of the files in ``folder``, and the sources among them: the very bytes that were hashed."""
    hashes, sources = {}, {}
    for path in files_in(folder):
        if path.endswith(".py") or path == MANIFEST:
            sources[path] = (folder / path).read_bytes()
            hashes[path] = sha256(sources[path]).hexdigest()
        elif "__pycache__" not in PurePosixPath(path).parts:
            hashes[path] = sha256_of(folder / path)
    return digest_of(hashes), sources


def component_files(folder: Path) -> list[str]:
    """The relative paths of the component files of the repository in ``folder``, sorted.

    Left out are what hubs make (hidden files, ``README.md`` and ``configuration.json`` at the root) and ``__pycache__``.

    Raises:
        PluginLoadError: there is a symlink or a special file among them. The links of Hugging Face's cache, from a snapshot to
            its blobs, aren't the repository's and are followed.
    """
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None
    found = []
    pending = [folder]
    while pending:
        for path in pending.pop().iterdir():
            name = path.relative_to(folder).as_posix()
            if path.name.startswith(".") or path.name == "__pycache__" or name in _OF_THE_PLATFORM:
                continue
            of_cache = blobs is not None and path.is_symlink() and path.resolve().parent == blobs.resolve()
            if (path.is_symlink() and not of_cache) or not (path.is_dir() or path.is_file()):
                raise PluginLoadError(
                    f"{path} is a symlink or a special file, and a component's repository may hold only files and folders. "
                    "Its author has to replace it by a copy."
                )
            if path.is_dir():
                pending.append(path)
            else:
                found.append(name)
    return sorted(found)
