"""A loopback server that speaks as much of ModelScope's protocol as downloads and uploads need.

File trees (paged for data sets), revisions, and files with ranges, for models and data sets, at a branch, a tag or a commit;
repositories, tags and commits are made, of normal files and large ones (LFS). It has the real hub's habits that clients must
live with: an unknown revision is no error but a listing with ``null`` for the files, only the first eight digits of the listed
commit are told, and a data set is asked for in a form, not in JSON.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from email import message_from_bytes

from twinkle_hub.repository import RepoType
from twinkle_hub.testing.loopback import LoopbackServer, Reply, Request, file_reply, json_reply
from twinkle_hub.testing.repositories import Repository

_TYPES: dict[str, RepoType] = {"models": "model", "datasets": "dataset"}
_PRIVATE, _PUBLIC = 1, 5  # the numbers that ModelScope has for them


class MsServer(LoopbackServer):
    """``with MsServer() as server: server.repositories.commit("owner/name", {"a.txt": b"…"})``.

    Args:
        token: who sends it may read private repositories, and write.
        redirects: for paths that end so, the URL (with ``{sha256}``) of the place that serves them.
    """

    default_branch = "master"

    def __init__(self, *, token: str | None = None, redirects: Mapping[str, str] | None = None) -> None:
        super().__init__(token=token)
        self.redirects = dict(redirects or {})

    def answer(self, request: Request) -> Reply:
        """See ``LoopbackServer.answer``."""
        match request.segments:
            case ["lfs", sha256]:
                self.blobs[sha256] = request.body
                return json_reply({})
            case ["api", "v1", *_] if request.method == "POST" and not self.may_write(request):
                return _envelope(None, 403 if request.token else 401, 10010203001, "no permission")
            case ["api", "v1", types] if types in _TYPES and request.method == "POST":
                wanted = _form(request) if types == "datasets" else request.json()
                repo_id = f"{wanted.get('Path') or wanted['Owner']}/{wanted['Name']}"
                created = self.repositories.create(repo_id, _TYPES[types], private=int(wanted["Visibility"]) == _PRIVATE)
                return _envelope({"Name": wanted["Name"]}) if created else _envelope(None, 400, 10010101001, "it exists")
            case ["api", "v1", "repos", types, owner, name, *rest] if request.method == "POST" and types in _TYPES:
                return self._change(request, _TYPES[types], f"{owner}/{name}", rest)
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
                place = next((place for end, place in self.redirects.items() if request.query["FilePath"].endswith(end)), None)
                if place is not None:
                    return Reply(302, b"", {"Location": place.format(sha256=hashlib.sha256(content).hexdigest())})
                return file_reply(content, request, {})
            case ["repo", "tag"]:
                wanted = request.json()
                repository.tags[wanted["TagName"]] = repository.find(wanted["Ref"]) or ""
                return _envelope({})
            case []:
                return _envelope({"Name": request.segments[-1], "Visibility": _PRIVATE if repository.private else _PUBLIC})
        return _envelope(None, 404, 404, "no such route")

    def _change(self, request: Request, repo_type: RepoType, repo_id: str, rest: list[str]) -> Reply:
        repository = self.repositories.get(repo_id, repo_type)
        if repository is None:
            return _envelope(None, 404, 10010205001, "record not found")
        match rest:
            case ["info", "lfs", "objects", "batch"]:
                return _envelope({"objects": [self._object(row) for row in request.json()["objects"]]})
            case ["commit", *branch]:
                files = dict(repository.commits[repository.find("/".join(branch)) or ""])
                for action in request.json()["actions"]:
                    large = action["type"] == "lfs"
                    files[action["path"]] = self.blobs[action["sha256"]] if large else base64.b64decode(action["content"])
                commit = self.repositories.commit(
                    repo_id, files, repo_type=repo_type, branch="/".join(branch), private=repository.private
                )
                return _envelope({"oid": commit})
        return _envelope(None, 404, 404, "no such route")

    def _object(self, row: dict[str, object]) -> dict[str, object]:
        sent = {} if row["oid"] in self.blobs else {"actions": {"upload": {"href": f"{self.endpoint}/lfs/{row['oid']}"}}}
        return {"oid": row["oid"], "size": row["size"], **sent}


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


def _form(request: Request) -> dict[str, str]:
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    fields = message_from_bytes(head + request.body).walk()
    return {str(part.get_param("name", header="content-disposition")): str(part.get_payload()) for part in fields}


def _envelope(data: object, status: int = 200, code: int = 200, message: str = "success") -> Reply:
    return json_reply({"Code": code, "Data": data, "Message": message, "RequestId": "test", "Success": status == 200}, status)
