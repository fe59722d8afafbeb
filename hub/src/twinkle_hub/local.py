"""Repositories in folders: the ``file`` hub, and the base of hubs that plugins ship as package data.

A plain folder is a repository with one revision, ``main``, whose commit is the digest of its content. A folder with
``refs/<name>`` (a file that holds a commit) and ``snapshots/<commit>/`` has revisions; a snapshot never changes once it is there.
That is also how Hugging Face's cache is laid out, so its folders work as repositories; ``upload`` writes it. Nothing is copied for
reading: the repository's own folder is what ``download`` returns. Nothing outside a repository is ever read on its behalf.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from twinkle_hub._snapshots import writing
from twinkle_hub.content import Content, files_of, inside
from twinkle_hub.digest import digest_of, sha256_of
from twinkle_hub.errors import HubError, RepositoryNotFoundError, RevisionNotFoundError
from twinkle_hub.hub import UploadProgress
from twinkle_hub.repository import RepoRef, RepoType, check_revision

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


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
        return files_of(self._folder(repository, repo_id, revision), repository)

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
        files_of(folder, repository)
        return folder

    def upload(
        self,
        folder: Path,
        repo_id: str,
        *,
        repo_type: RepoType = "model",
        revision: str | None = None,
        message: str = "Upload",
        private: bool = True,
        allow_patterns: Sequence[str] | None = None,
        ignore_patterns: Sequence[str] | None = None,
        tag: str | None = None,
        token: str | None = None,
        progress: Callable[[UploadProgress], None] | None = None,
    ) -> str:
        """Add a snapshot to a folder with revisions, whole or not at all; the commit is the digest of its content.

        A new repository's folder is open to its owner only, unless ``private=False``; one that is there keeps its permissions.
        """
        root, branch = self._path(repo_id, revision), revision or "main"
        if tag is not None:
            check_revision(tag, str(RepoRef(self.scheme, repo_id)))
        if any(_COMMIT.fullmatch(name) for name in (branch, tag or "")):
            raise HubError(f"{RepoRef(self.scheme, repo_id, branch)} names a commit. Name a branch, and as a tag another word.")
        content = Content.of(folder, allow_patterns, ignore_patterns)
        if root.exists() and not root.is_dir():
            raise HubError(f"{RepoRef(self.scheme, repo_id)}: {root} is a file. Publish to another place.")
        with writing(root, private=private) as writer:
            parent = None
            if writer.commit_of(branch) is not None:
                parent = self._snapshot(root, repo_id, branch).name
            commit = writer.add_snapshot(content, parent, progress or (lambda _: None))
            if tag is not None and writer.commit_of(tag) not in (None, commit):
                raise HubError(f"{RepoRef(self.scheme, repo_id, tag)} is there already, and is another commit. Choose another tag.")
            writer.point(branch, commit)
            if tag is not None:
                writer.point(tag, commit)
        return commit

    def _repository(self, repo_id: str, revision: str | None) -> Path:
        path = self._path(repo_id, revision)
        if not path.is_dir():
            kind = "is a file, not a folder" if path.exists() else "doesn't exist"
            reference = RepoRef(self.scheme, repo_id, revision)
            raise RepositoryNotFoundError(f"{reference}: the folder {path} {kind}. {self._neighbours(path)}")
        return path

    def _path(self, repo_id: str, revision: str | None) -> Path:
        """Where the repository is, or would be."""
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
            commit = digest_of({path: sha256_of(repository / path) for path in files_of(repository, repository)})
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
            return inside(repository / "snapshots" / name, repository)
        if not reference.is_file():
            known = sorted(
                path.relative_to(repository / "refs").as_posix() for path in (repository / "refs").rglob("*") if path.is_file()
            )
            raise RevisionNotFoundError(f"{RepoRef(self.scheme, repo_id)} has no revision {name!r}. Revisions: {_some(known)}.")
        commit = inside(reference, repository).read_text(encoding="utf-8", errors="replace").strip()
        if not _COMMIT.fullmatch(commit) or not (repository / "snapshots" / commit).is_dir():
            raise RevisionNotFoundError(
                f"{RepoRef(self.scheme, repo_id, name)}: {reference} points to {commit[:80]!r}, which isn't among the snapshots. "
                f"Publish the repository again."
            )
        return inside(repository / "snapshots" / commit, repository)


def _has_revisions(repository: Path) -> bool:
    return (repository / "refs").is_dir() and (repository / "snapshots").is_dir()


def _some(names: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
