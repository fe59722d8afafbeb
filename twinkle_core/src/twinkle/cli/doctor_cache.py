"""What ``twinkle plugins doctor`` finds out about Twinkle's folder, the store of components from hubs, and the project's lock.

Only looks: nothing is fetched, imported, changed or removed, so that what is damaged can still be looked at. Leans on the store's
layout and the lock's file; knows nothing of installed plugins.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from twinkle.cli.doctor import Finding

if TYPE_CHECKING:
    from twinkle_hub.repository import RepoType
    from twinkle_registry.lock import LockedRepository

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEFT_OVER_S = 3600.0
"""A temporary folder older than this is left over: fetching a component, a few small files, takes seconds."""


def home() -> Iterator[Finding]:
    """Whether Twinkle's folder can be read and written."""
    folder = _home()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        yield Finding("error", "home", f"unreadable: {existing} is no folder. Choose one: export TWINKLE_HOME=FOLDER")
    elif not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            "error",
            "home",
            f"unreadable: {existing} can't be read and written by this user. Mend it: chmod u+rwx {existing}, "
            f"or choose another: export TWINKLE_HOME=FOLDER",
        )
    else:
        yield Finding("ok", "home", f"{folder}{'' if folder.exists() else ' (not made yet)'}")


def store() -> Iterator[Finding]:
    """Whether what lies under a digest has that digest, and what else lies there."""
    folder = _home() / "components" / "sha256"
    if not folder.is_dir():
        return
    sound = 0
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            age = time.time() - path.lstat().st_mtime
            if age > _LEFT_OVER_S:
                message = (
                    f"left over: {path}, from a download that was interrupted {age / 3600:.0f} h ago. Remove it: twinkle hub gc"
                )
                yield Finding("warning", "cache", message)
        elif not _DIGEST.fullmatch(path.name) or not path.is_dir():
            yield Finding("warning", "cache", f"{path} is nothing that Twinkle puts there. Remove it: rm -r '{path}'")
        elif (problem := damage(path)) is not None:
            yield Finding(
                "error",
                "cache",
                f"damaged: {path.name[:12]}…: {problem}. It is never executed. Fetch it anew: rm -rf '{path}' && twinkle hub sync",
            )
        else:
            sound += 1
    if sound:
        yield Finding("ok", "cache", f"{sound} component(s) from hubs, each with the digest that it is stored under")


def damage(folder: Path) -> str | None:
    """What is wrong with the files in ``folder``, whose name is their digest; ``None`` where they are what they were."""
    from twinkle_hub.digest import digest_of_folder, files_in
    from twinkle_hub.errors import HubError

    try:
        found = digest_of_folder(folder, [path for path in files_in(folder) if "__pycache__" not in path.split("/")])
    except (OSError, HubError) as error:
        return f"its files can't be read: {error}".rstrip(".")
    return None if found == folder.name else f"its files have the digest {found[:12]}… now"


def lock() -> Iterator[Finding]:
    """Whether what the project's lock names is there, and is still what the lock says."""
    from twinkle.component import default_registry

    locked = default_registry().lock
    folder = _home() / "components" / "sha256"
    for row in locked.components:
        if not (folder / row.digest).is_dir():
            yield Finding(
                "warning", row.reference, f"lock drift: {row.digest[:12]}… isn't in the cache. Fetch it: twinkle hub sync"
            )
        elif damage(folder / row.digest) is not None:
            yield Finding(
                "error", row.reference, "lock drift: what is cached differs from the lock. Fetch it anew: twinkle hub sync"
            )
        if (now := _digest_now(row.reference)) not in (None, row.digest):
            yield Finding(
                "warning",
                row.reference,
                f"lock drift: the folder's files have the digest {str(now)[:12]}… now, and {row.digest[:12]}… is locked. See "
                f"twinkle hub diff {row.reference}, then lock them: twinkle hub add {row.reference}",
            )
    tables: tuple[tuple[RepoType, tuple[LockedRepository, ...]], ...] = (("model", locked.models), ("dataset", locked.datasets))
    for table, entries in tables:
        for entry in entries:
            if not _is_here(entry, table):
                message = f"lock drift: the {table} isn't in the cache at {entry.commit}. Fetch it: twinkle hub sync"
                yield Finding("warning", entry.reference, message)
    if count := len(locked.components) + len(locked.models) + len(locked.datasets):
        yield Finding("ok", "lock", f"{count} reference(s) pinned in {locked.file}")


def _is_here(entry: LockedRepository, repo_type: RepoType) -> bool:
    """Whether the hub's own cache holds the files; they aren't hashed, as base models are large: twinkle hub verify does that."""
    from twinkle.component import default_registry
    from twinkle_hub.errors import HubError
    from twinkle_hub.repository import RepoRef

    found = RepoRef.parse(entry.reference)
    if found.scheme == "file":
        return Path(found.repo_id).exists()
    try:
        hub = default_registry().hubs.get(found.scheme)
        hub.download(
            found.repo_id,
            revision=entry.commit,
            repo_type=repo_type,
            allow_patterns=entry.allow_patterns,
            ignore_patterns=entry.ignore_patterns,
            offline=True,
        )
    except HubError:
        return False
    return True


def _digest_now(reference: str) -> str | None:
    """The digest of the files of a ``file://`` reference, which looking costs nothing; ``None`` for hubs and what isn't there."""
    from twinkle_hub.digest import digest_of_folder
    from twinkle_hub.errors import TwinkleError
    from twinkle_hub.local import FileHub
    from twinkle_hub.repository import RepoRef
    from twinkle_registry.store import component_files

    if not reference.startswith("file://"):
        return None
    try:
        repository = RepoRef.parse(reference)
        folder = FileHub().download(repository.repo_id, revision=repository.revision)
        return digest_of_folder(folder, component_files(folder))
    except (OSError, TwinkleError):
        return None


def _home() -> Path:
    from twinkle_hub.settings import Settings

    return Settings.from_environment().home
