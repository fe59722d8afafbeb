"""Repositories in folders: the ``file`` hub, and the base of hubs that plugins ship as package data.

A plain folder is a repository with one revision, ``main``, whose commit is the digest of its content. A folder with
``refs/<name>`` (a file that holds a commit) and ``snapshots/<commit>/`` has revisions; a snapshot never changes once it is there.
That is also how Hugging Face's cache is laid out, so its folders work as repositories. Nothing is copied: the repository's own
folder is what ``download`` returns. Nothing outside a repository is ever read on its behalf.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from twinkle_hub.digest import digest_of, sha256_of
from twinkle_hub.errors import HubError, RepositoryNotFoundError, RevisionNotFoundError
from twinkle_hub.repository import RepoRef, RepoType, check_revision

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What tools leave in a folder and nobody means to publish; it would change the digest with every use.
_NO_CONTENT = frozenset({".git", ".cache", "__pycache__", ".ms_upload_cache"})


class FileHub:
    """Repositories that are folders on this machine.

    Args:
        root: the folder that holds the repositories, which are then named ``owner/name``. ``None``: a repository is named by its
            absolute path.
        scheme: the scheme of the references, for hubs that plugins add.
    """

    def __init__(self, root: Path | None = None, *, scheme: str = "file") -> None:
        self.root = None if root is None else root.absolute()
        self.scheme = scheme

    def resolve(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model", *, offline: bool = False) -> str:
        """The commit of ``revision`` (default ``main``). For a plain folder this reads every byte of it."""
        repository = self._repository(repo_id, revision)
        if _has_revisions(repository):
            return self._snapshot(repository, repo_id, revision).name
        return self._plain_commit(repository, repo_id, revision)

    def list_files(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model") -> list[str]:
        """The files of ``revision``, without what tools leave behind (``.git``, ``__pycache__``, …)."""
        repository = self._repository(repo_id, revision)
        return _files(self._folder(repository, repo_id, revision), repository)

    def download(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        repo_type: RepoType = "model",
        allow_patterns: Sequence[str] | None = None,
        ignore_patterns: Sequence[str] | None = None,
        offline: bool = False,
    ) -> Path:
        """The folder of ``revision`` itself, whole: patterns save nothing here."""
        repository = self._repository(repo_id, revision)
        folder = self._folder(repository, repo_id, revision)
        _files(folder, repository)
        return folder

    def _repository(self, repo_id: str, revision: str | None) -> Path:
        reference = str(RepoRef(self.scheme, repo_id, revision))
        if revision is not None:
            check_revision(revision, reference)
        path = Path(repo_id)
        if self.root is None:
            if not path.is_absolute():
                raise HubError(f"{reference} names no folder: give an absolute path, or begin with './'.")
        else:
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise HubError(f"{reference} leads out of the hub's folder; repositories there are named owner/name.")
            path = self.root / path
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise HubError(f"{reference} is a symlink that leads out of the hub's folder ({self.root}).")
        if not path.is_dir():
            kind = "is a file, not a folder" if path.exists() else "doesn't exist"
            raise RepositoryNotFoundError(f"{reference}: the folder {path} {kind}. {self._neighbours(path)}")
        return path

    def _neighbours(self, path: Path) -> str:
        if not path.parent.is_dir():
            return f"Nor does {path.parent}."
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        return f"Folders in {path.parent}: {_some(names)}."

    def _folder(self, repository: Path, repo_id: str, revision: str | None) -> Path:
        if _has_revisions(repository):
            return self._snapshot(repository, repo_id, revision)
        if revision not in (None, "main"):
            self._plain_commit(repository, repo_id, revision)
        return repository

    def _plain_commit(self, repository: Path, repo_id: str, revision: str | None) -> str:
        if revision in (None, "main") or _COMMIT.fullmatch(revision or ""):
            commit = digest_of({path: sha256_of(repository / path) for path in _files(repository, repository)})
            if revision in (None, "main", commit):
                return commit
            now = f" (its content is {commit} now)"
        else:
            now = ""
        raise RevisionNotFoundError(
            f"{RepoRef(self.scheme, repo_id)} has no revision {revision!r}{now}: a plain folder's only revision is 'main'. "
            f"Leave the revision out."
        )

    def _snapshot(self, repository: Path, repo_id: str, revision: str | None) -> Path:
        name = revision or "main"
        reference = repository / "refs" / name
        if _COMMIT.fullmatch(name) and (repository / "snapshots" / name).is_dir():
            return _inside(repository / "snapshots" / name, repository)
        if not reference.is_file():
            known = sorted(
                path.relative_to(repository / "refs").as_posix() for path in (repository / "refs").rglob("*") if path.is_file()
            )
            raise RevisionNotFoundError(f"{RepoRef(self.scheme, repo_id)} has no revision {name!r}. Revisions: {_some(known)}.")
        commit = _inside(reference, repository).read_text(encoding="utf-8", errors="replace").strip()
        if not _COMMIT.fullmatch(commit) or not (repository / "snapshots" / commit).is_dir():
            raise RevisionNotFoundError(
                f"{RepoRef(self.scheme, repo_id, name)}: {reference} points to {commit[:80]!r}, which isn't among the snapshots. "
                f"Publish the repository again."
            )
        return _inside(repository / "snapshots" / commit, repository)


def _has_revisions(repository: Path) -> bool:
    return (repository / "refs").is_dir() and (repository / "snapshots").is_dir()


def _inside(path: Path, repository: Path) -> Path:
    """``path``, if following its symlinks doesn't lead out of ``repository``."""
    if not path.resolve().is_relative_to(repository.resolve()):
        raise HubError(f"{path} is a symlink that leads out of its repository ({repository}). Replace it by a copy.")
    return path


def _files(folder: Path, repository: Path) -> list[str]:
    """The files below ``folder``. A symlinked folder inside the repository isn't followed: its files are listed where they are."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NO_CONTENT]
        for name in (*folders, *names):
            path = Path(base, name)
            if path.is_symlink():
                _inside(path, repository)
            if not path.is_dir() and not path.is_file():
                raise HubError(f"{path} is a broken symlink or a special file; a repository holds only files. Remove it.")
        found += [Path(base, name).relative_to(folder).as_posix() for name in names]
    return sorted(found)


def _some(names: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
