"""A loopback server that speaks as much of ModelScope's protocol as downloads need.

File trees (paged for data sets), revisions, and files with ranges, for models and data sets, at a branch, a tag or a commit. It has
the real hub's habits that clients must live with: an unknown revision is no error but a listing with ``null`` for the files, and
only the first eight digits of the listed commit are told.
"""

from __future__ import annotations

import hashlib

from twinkle_hub.repository import RepoType
from twinkle_hub.testing.loopback import LoopbackServer, Reply, Request, file_reply, json_reply
from twinkle_hub.testing.repositories import Repository

_TYPES: dict[str, RepoType] = {"models": "model", "datasets": "dataset"}


class MsServer(LoopbackServer):
    """``with MsServer() as server: server.repositories.commit("owner/name", {"a.txt": b"…"})``.

    Args:
        token: who sends it may read private repositories.
    """

    default_branch = "master"

    def answer(self, request: Request) -> Reply:
        """See ``LoopbackServer.answer``."""
        match request.segments:
            case ["api", "v1", types, owner, name, *rest] if types in _TYPES:
                repository = self.repositories.get(f"{owner}/{name}", _TYPES[types])
                if repository is None:
                    return _envelope(None, 404, 10010205001, "record not found")
                if not self.may_read(repository, request):
                    return _envelope(None, 403, 10010203001, "no permission")
                return self._of(repository, request, rest)
        return _envelope(None, 404, 404, "no such route")

    def _of(self, repository: Repository, request: Request, rest: list[str]) -> Reply:
        commit = repository.find(request.query.get("Revision"))
        match rest:
            case ["repo", "files" | "tree"]:
                return _envelope(_listing(repository, commit, request))
            case ["revisions"]:
                names = {"Branches": repository.branches, "Tags": repository.tags}
                return _envelope({"RevisionMap": {kind: [{"Revision": name} for name in found] for kind, found in names.items()}})
            case ["repo"]:
                content = repository.commits[commit].get(request.query.get("FilePath", "")) if commit else None
                if content is None:
                    return _envelope(None, 404, 10990101007, "file not found")
                return file_reply(content, request, {})
            case []:
                return _envelope({"Name": request.segments[-1]})
        return _envelope(None, 404, 404, "no such route")


def _listing(repository: Repository, commit: str | None, request: Request) -> dict[str, object]:
    if commit is None:
        return {"Files": None, "IsVisual": 0, "LatestCommitter": None}
    files = repository.commits[commit]
    rows: list[dict[str, object]] = [
        {
            "Type": "blob",
            "Path": path,
            "Name": path.rpartition("/")[2],
            "Size": len(content),
            "Sha256": hashlib.sha256(content).hexdigest(),
            "Revision": repository.touched[commit][path],
        }
        for path, content in sorted(files.items())
    ]
    folders = {path[:end] for path in files for end, char in enumerate(path) if char == "/"}
    rows += [{"Type": "tree", "Path": folder, "Name": folder.rpartition("/")[2], "Size": 0} for folder in sorted(folders)]
    root = request.query.get("Root", "").strip("/")
    if root:
        rows = [row for row in rows if str(row["Path"]).startswith(root + "/")]
    if request.query.get("Recursive", "").lower() != "true":
        rows = [row for row in rows if "/" not in str(row["Path"]).removeprefix(root + "/")]
    if "PageSize" in request.query:
        size, page = int(request.query["PageSize"]), int(request.query.get("PageNumber", "1"))
        rows = rows[(page - 1) * size : page * size]
    return {"Files": rows, "IsVisual": 0, "LatestCommitter": {"Id": "", "ShortId": commit[:8]}}


def _envelope(data: object, status: int = 200, code: int = 200, message: str = "success") -> Reply:
    return json_reply({"Code": code, "Data": data, "Message": message, "RequestId": "test", "Success": status == 200}, status)
