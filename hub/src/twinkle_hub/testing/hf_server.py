"""A loopback server that speaks as much of Hugging Face's protocol as downloads need.

Repository info, file trees, and files with ranges, for models and data sets, at a branch, a tag or a commit. What it answers, and
with which ``X-Error-Code``, is what ``huggingface_hub`` documents and tells apart.
"""

from __future__ import annotations

import hashlib

from twinkle_hub.repository import RepoType
from twinkle_hub.testing.loopback import LoopbackServer, Reply, Request, file_reply, json_reply
from twinkle_hub.testing.repositories import Repository

_TYPES: dict[str, RepoType] = {"models": "model", "datasets": "dataset"}


class HfServer(LoopbackServer):
    """``with HfServer() as server: server.repositories.commit("owner/name", {"a.txt": b"…"})``.

    Args:
        token: who sends it may read private repositories.
        gated: repositories whose conditions nobody has accepted.
    """

    default_branch = "main"

    def __init__(self, *, token: str | None = None, gated: frozenset[str] = frozenset()) -> None:
        super().__init__(token=token)
        self._gated = gated

    def answer(self, request: Request) -> Reply:
        """See ``LoopbackServer.answer``."""
        match request.segments:
            case ["api", types, owner, name] if types in _TYPES:
                return self._info(request, _TYPES[types], f"{owner}/{name}", None)
            case ["api", types, owner, name, "revision", revision] if types in _TYPES:
                return self._info(request, _TYPES[types], f"{owner}/{name}", revision)
            case ["api", types, owner, name, "tree", revision, *_] if types in _TYPES:
                return self._tree(request, _TYPES[types], f"{owner}/{name}", revision)
            case ["datasets", owner, name, "resolve", revision, *path]:
                return self._file(request, "dataset", f"{owner}/{name}", revision, "/".join(path))
            case [owner, name, "resolve", revision, *path]:
                return self._file(request, "model", f"{owner}/{name}", revision, "/".join(path))
        return _error(404, None, "no such route")

    def _find(self, request: Request, repo_type: RepoType, repo_id: str, revision: str | None) -> tuple[Repository, str] | Reply:
        repository = self.repositories.get(repo_id, repo_type)
        if repository is None or not self.may_read(repository, request):
            # The real hub doesn't tell strangers whether a repository is private or not there: 401 in both cases.
            return _error(404 if request.token else 401, "RepoNotFound", "Repository not found")
        if repo_id in self._gated:
            return _error(403, "GatedRepo", "Access to this repository is restricted")
        commit = repository.find(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def _info(self, request: Request, repo_type: RepoType, repo_id: str, revision: str | None) -> Reply:
        found = self._find(request, repo_type, repo_id, revision)
        if isinstance(found, Reply):
            return found
        repository, commit = found
        siblings = [{"rfilename": path} for path in sorted(repository.commits[commit])]
        return json_reply({"id": repo_id, "sha": commit, "siblings": siblings, "private": repository.private, "tags": []})

    def _tree(self, request: Request, repo_type: RepoType, repo_id: str, revision: str) -> Reply:
        found = self._find(request, repo_type, repo_id, revision)
        if isinstance(found, Reply):
            return found
        repository, commit = found
        rows = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in sorted(repository.commits[commit].items())
        ]
        return json_reply(rows)

    def _file(self, request: Request, repo_type: RepoType, repo_id: str, revision: str, path: str) -> Reply:
        found = self._find(request, repo_type, repo_id, revision)
        if isinstance(found, Reply):
            return found
        repository, commit = found
        content = repository.commits[commit].get(path)
        if content is None:
            return _error(404, "EntryNotFound", "Entry not found")
        return file_reply(content, request, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit})


def _error(status: int, code: str | None, message: str) -> Reply:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return json_reply({"error": message}, status, headers)
