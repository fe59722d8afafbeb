"""Models and data sets by reference: give a local path or a hub reference, get a path.

The project's ``[mirror]`` table and the hubs that plugins add come from the registry of this process; whether the network may be
used comes from the environment. Knows nothing of what is in the files, and loads no code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twinkle_hub.repository import RepoType


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

    Raises:
        HubError: it can't be found or fetched; the message says why and what to do.
    """
    return _fetch(reference, "model", revision, allow_patterns, ignore_patterns)


def download_dataset(
    reference: str | os.PathLike[str],
    *,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
) -> Path:
    """Return a folder with the files of a data set, or the path itself where ``reference`` is one. As ``download_model``."""
    return _fetch(reference, "dataset", revision, allow_patterns, ignore_patterns)


def _fetch(
    reference: str | os.PathLike[str],
    repo_type: RepoType,
    revision: str | None,
    allow_patterns: Sequence[str] | None,
    ignore_patterns: Sequence[str] | None,
) -> Path:
    from twinkle.component import default_registry
    from twinkle_hub.hubs import fetch, locate
    from twinkle_hub.settings import Settings

    reference = os.fspath(reference)
    path = locate(reference, revision=revision)
    if isinstance(path, Path):  # needs neither plugins nor a project
        return path
    registry = default_registry()
    return fetch(
        reference,
        hubs=registry.hubs,
        repo_type=repo_type,
        revision=revision,
        mirror=registry.project.mirror,
        allow_patterns=allow_patterns,
        ignore_patterns=ignore_patterns,
        offline=Settings.from_environment().offline,
    )
