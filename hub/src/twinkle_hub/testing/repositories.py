"""Repositories in memory, with commits, branches and tags: what the test servers serve.

A commit is a whole set of files, named by 40 hex digits of its content and parent. Knows nothing of any protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twinkle_hub.digest import digest_of_bytes, files_in
from twinkle_hub.repository import RepoType

Files = Mapping[str, bytes]


@dataclass
class Repository:
    """A repository: ``commits`` by name, ``branches`` and ``tags`` that point to them, and who may read it.

    ``touched`` holds, for each commit and path, the commit that last changed that path, as hubs list it.
    """

    default_branch: str
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    touched: dict[str, dict[str, str]] = field(default_factory=dict)

    def find(self, revision: str | None) -> str | None:
        """The commit that ``revision`` names (a unique beginning of a commit will do), or ``None``."""
        name = revision or self.default_branch
        if name in self.branches or name in self.tags:
            return self.branches.get(name) or self.tags[name]
        found = [commit for commit in self.commits if len(name) >= 7 and commit.startswith(name)]
        return found[0] if len(found) == 1 else None

    def commit(self, files: Files, branch: str) -> str:
        """Add a commit with exactly ``files`` to ``branch`` and return its name."""
        parent = self.branches.get(branch)
        name = hashlib.sha1(f"{parent}{digest_of_bytes(files)}".encode()).hexdigest()
        before = self.commits.get(parent, {}) if parent else {}
        last = self.touched.get(parent, {}) if parent else {}
        self.touched[name] = {path: last[path] if before.get(path) == content else name for path, content in files.items()}
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name


class Repositories:
    """Model and data set repositories by name. Not for several writers at once."""

    def __init__(self, default_branch: str) -> None:
        self._default_branch = default_branch
        self._repositories: dict[tuple[RepoType, str], Repository] = {}

    def commit(
        self,
        repo_id: str,
        files: Files | Path,
        *,
        repo_type: RepoType = "model",
        branch: str | None = None,
        private: bool = False,
    ) -> str:
        """Add a commit with exactly ``files`` (or a folder's) to a branch; makes the repository where it isn't there."""
        if isinstance(files, Path):
            files = {path: (files / path).read_bytes() for path in files_in(files)}
        repository = self._repositories.setdefault((repo_type, repo_id), Repository(self._default_branch))
        repository.private = private
        return repository.commit(files, branch or self._default_branch)

    def create(self, repo_id: str, repo_type: RepoType, *, private: bool) -> bool:
        """Make a repository with an empty first commit; whether it wasn't there."""
        if (repo_type, repo_id) in self._repositories:
            return False
        self.commit(repo_id, {}, repo_type=repo_type, private=private)
        return True

    def tag(self, repo_id: str, name: str, commit: str, *, repo_type: RepoType = "model") -> None:
        """Let the tag ``name`` point to ``commit``."""
        self._repositories[repo_type, repo_id].tags[name] = commit

    def get(self, repo_id: str, repo_type: RepoType) -> Repository | None:
        """The repository, or ``None``."""
        return self._repositories.get((repo_type, repo_id))
