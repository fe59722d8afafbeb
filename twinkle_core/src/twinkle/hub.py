"""Models and data sets by reference: give a local path or a hub reference, get a path; or publish a folder.

The project's ``[mirror]`` table, its lock and the hubs that plugins add come from the registry of this process; whether the network
and what isn't locked may be used comes from the environment. Knows nothing of what is in the files, and loads no code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twinkle.run_record import record_repository
from twinkle.run_sources import Patterns

if TYPE_CHECKING:
    from twinkle_hub.repository import RepoType
    from twinkle_hub.uploads import Uploaded, UploadHandle


def download_model(
    reference: str | os.PathLike[str],
    *,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
) -> Path:
    """Return a folder with the files of a model.

    Args:
        reference: an existing path (returned as it is), ``scheme://owner/name[@revision]``, or ``owner/name`` (Hugging Face).
        revision: branch, tag or commit; instead of ``@revision`` in the reference.
        allow_patterns: only fetch files whose path matches one of these (``fnmatch``). The folder may hold others, too.
        ignore_patterns: don't fetch files whose path matches one of these.

    The project's ``twinkle.lock`` decides which commit a reference stands for; what it doesn't hold is taken as it is now, or with
    ``TWINKLE_LOCKED`` is an error. A lock is looked up under the reference that the project's ``[mirror]`` leads to.

    Raises:
        HubError: it can't be found or fetched; the message says why and what to do.
        LockError: the lock isn't valid, or only locked references may be used and this one isn't.
    """
    return _recorded(reference, "model", revision, allow_patterns, ignore_patterns)


def download_dataset(
    reference: str | os.PathLike[str],
    *,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
) -> Path:
    """Return a folder with the files of a data set, or the path itself where ``reference`` is one. As ``download_model``."""
    return _recorded(reference, "dataset", revision, allow_patterns, ignore_patterns)


def _recorded(
    reference: str | os.PathLike[str],
    repo_type: RepoType,
    revision: str | None,
    allow_patterns: Sequence[str] | None,
    ignore_patterns: Sequence[str] | None,
) -> Path:
    """What ``_fetch`` gives, noted in the run's bill of materials."""
    path = _fetch(reference, repo_type, revision, allow_patterns, ignore_patterns)
    allowed = None if allow_patterns is None else tuple(allow_patterns)
    ignored = None if ignore_patterns is None else tuple(ignore_patterns)
    record_repository(repo_type, os.fspath(reference), path, revision=revision, patterns=Patterns(allowed, ignored))
    return path


def _fetch(
    reference: str | os.PathLike[str],
    repo_type: RepoType,
    revision: str | None,
    allow_patterns: Sequence[str] | None,
    ignore_patterns: Sequence[str] | None,
) -> Path:
    from twinkle.component import default_registry
    from twinkle_hub.errors import HubError
    from twinkle_hub.hubs import fetch, locate
    from twinkle_hub.settings import Settings
    from twinkle_registry.lock import find_lock
    from twinkle_registry.locking import pinned

    reference = os.fspath(reference)
    path = locate(reference, revision=revision)
    if isinstance(path, Path):  # needs neither plugins nor a project
        return path
    registry = default_registry()
    settings = Settings.from_environment()
    lock = find_lock(registry.project)
    found = locate(reference, revision=revision, mirror=registry.project.mirror)
    pin = found if isinstance(found, Path) else pinned(lock, found, repo_type, locked=settings.locked)
    # What isn't pinned goes the way that it was asked for: errors tell of the mirror then.
    asked, asked_revision, mirror = (str(pin), None, {}) if pin != found else (reference, revision, registry.project.mirror)
    try:
        return fetch(
            asked,
            hubs=registry.hubs,
            repo_type=repo_type,
            revision=asked_revision,
            mirror=mirror,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            offline=settings.offline,
        )
    except HubError as error:
        if pin == found:
            raise
        raise type(error)(
            f"{error} ({found} is pinned to that commit by {lock.file}; to move the pin: twinkle hub lock --update {found})"
        ) from error


def upload_folder(
    folder: str | os.PathLike[str],
    reference: str,
    *,
    repo_type: RepoType = "model",
    message: str = "Upload",
    private: bool = True,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
    tag: str | None = None,
    token: str | None = None,
) -> Uploaded:
    """Publish a folder as ``scheme://owner/name[@branch]`` (no scheme: Hugging Face) and return where, with the commit.

    A busy hub and a broken connection are tried again for some minutes. Files of the branch that the folder lacks stay.

    Args:
        private: make the repository private where it isn't there yet, and publish to no public one. ``False`` allows it.
        allow_patterns: only send files whose path matches one of these (``fnmatch``); ``ignore_patterns``: don't send those.
        tag: a name for the new commit.
        token: instead of the one that the hub's client knows; it goes to the client and nowhere else.

    Raises:
        HubError: it can't be published; the message says why and what to do.
    """
    from twinkle.component import default_registry
    from twinkle_hub.uploads import UploadOptions, upload

    registry = default_registry()
    options = UploadOptions(repo_type, message, private, allow_patterns, ignore_patterns, tag)
    return upload(Path(folder), reference, hubs=registry.hubs, options=options, token=token, mirror=registry.project.mirror)


def start_upload(
    folder: str | os.PathLike[str],
    reference: str,
    *,
    repo_type: RepoType = "model",
    message: str = "Upload",
    private: bool = True,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
    tag: str | None = None,
    token: str | None = None,
) -> UploadHandle:
    """As ``upload_folder``, in the background: ``result()`` waits for the end, ``progress`` tells how far it is.

    The folder has to stay as it is until then: a file that changes is an error. The process ends when the upload has.
    """
    from twinkle.component import default_registry
    from twinkle_hub.uploads import UploadOptions
    from twinkle_hub.uploads import start_upload as start

    registry = default_registry()
    options = UploadOptions(repo_type, message, private, allow_patterns, ignore_patterns, tag)
    return start(Path(folder), reference, hubs=registry.hubs, options=options, token=token, mirror=registry.project.mirror)
