"""A loopback server that speaks as much of Hugging Face's protocol as downloads and uploads need.

Repository info, file trees, and files with ranges, for models and data sets, at a branch, a tag or a commit; repositories,
branches, tags and commits are made, of regular files and large ones (LFS, no Xet). What it answers, and with which
``X-Error-Code``, is what ``huggingface_hub`` documents and tells apart.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from twinkle_hub.repository import RepoType
from twinkle_hub.testing.loopback import LoopbackServer, Reply, Request, file_reply, json_reply
from twinkle_hub.testing.repositories import Repository

_TYPES: dict[str, RepoType] = {"models": "model", "datasets": "dataset"}
_LARGE = (".safetensors", ".bin")  # what this server wants as LFS


class HfServer(LoopbackServer):
    """``with HfServer() as server: server.repositories.commit("owner/name", {"a.txt": b"…"})``.

    Args:
        token: who sends it may read private repositories, and write.
        gated: repositories whose conditions nobody has accepted.
        redirects: for paths that end so, the URL (with ``{sha256}``) of the place that serves them.
    """

    default_branch = "main"

    def __init__(
        self, *, token: str | None = None, gated: frozenset[str] = frozenset(), redirects: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(token=token)
        self._gated = gated
        self.redirects = dict(redirects or {})

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
        return self._write(request) if request.method in ("POST", "PUT") else _error(404, None, "no such route")

    def _write(self, request: Request) -> Reply:
        match request.segments:
            case ["lfs", sha256]:  # a signed URL: it takes no token
                if hashlib.sha256(request.body).hexdigest() != sha256:
                    return _error(400, None, "these bytes aren't the ones that were announced")
                self.blobs[sha256] = request.body
                return json_reply({})
            case _ if not self.may_write(request):
                return _error(403 if request.token else 401, None, "no permission to write")
            case ["api", "repos", "create"]:
                wanted = request.json()
                repo_id = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                private = wanted.get("private", wanted.get("visibility") == "private")
                created = self.repositories.create(repo_id, wanted.get("type") or "model", private=bool(private))
                return json_reply({"url": f"{self.endpoint}/{repo_id}", "name": repo_id}, 200 if created else 409)
            case ["api", types, owner, name, *rest] if types in _TYPES:
                return self._change(request, _TYPES[types], f"{owner}/{name}", rest)
            case [*prefix, owner, name, "info", "lfs", "objects", "batch"] if prefix in ([], ["datasets"]):
                return json_reply({"transfer": "basic", "objects": [self._object(row) for row in request.json()["objects"]]})
        return _error(404, None, "no such route")

    def _object(self, row: dict[str, object]) -> dict[str, object]:
        sent = {} if row["oid"] in self.blobs else {"actions": {"upload": {"href": f"{self.endpoint}/lfs/{row['oid']}"}}}
        return {"oid": row["oid"], "size": row["size"], **sent}

    def _change(self, request: Request, repo_type: RepoType, repo_id: str, rest: list[str]) -> Reply:
        repository = self.repositories.get(repo_id, repo_type)
        if repository is None:
            return _error(404, "RepoNotFound", "Repository not found")
        match rest:
            case ["branch", branch]:
                if branch in repository.branches:
                    return _error(409, None, "the branch is there already")
                repository.branches[branch] = repository.branches["main"]
                return json_reply({})
            case ["tag", revision]:
                tag, commit = request.json()["tag"], repository.find(revision)
                if tag in repository.tags or commit is None:
                    return _error(409 if commit else 404, None, "the tag is there already")
                repository.tags[tag] = commit
                return json_reply({})
            case ["preupload", _]:
                return json_reply({"files": [self._mode(file) for file in request.json()["files"]]})
            case ["commit", branch]:
                return self._commit(request, repository, repo_id, repo_type, branch)
        return _error(404, None, "no such route")

    def _mode(self, file: dict[str, object]) -> dict[str, object]:
        large = str(file["path"]).endswith(_LARGE)
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _commit(self, request: Request, repository: Repository, repo_id: str, repo_type: RepoType, branch: str) -> Reply:
        if branch not in repository.branches:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        files = dict(repository.commits[repository.branches[branch]])
        for line in request.body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                if value["oid"] not in self.blobs:
                    return _error(400, None, f"{value['path']} was never sent")
                files[value["path"]] = self.blobs[value["oid"]]
        commit = self.repositories.commit(repo_id, files, repo_type=repo_type, branch=branch, private=repository.private)
        return json_reply({"commitUrl": f"{self.endpoint}/{repo_id}/commit/{commit}", "commitOid": commit, "success": True})

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
        place = next((place for end, place in self.redirects.items() if path.endswith(end)), None)
        if place is not None:
            sha256 = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": commit}
            return Reply(302, b"", {"Location": place.format(sha256=sha256), **linked})
        return file_reply(content, request, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit})


def _error(status: int, code: str | None, message: str) -> Reply:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return json_reply({"error": message}, status, headers)
