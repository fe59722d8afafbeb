"""The ModelScope hub, through ``modelscope_hub`` (the client without the model library) and its cache.

The client downloads, resumes and checks hashes. This module adds what it lacks: a revision is resolved to its commit first, so that
a snapshot never changes; a snapshot counts as cached when it is complete; and errors say what to do. In the client's cache, beside
its ``snapshots/``, it keeps ``refs/<revision>`` (the commit) and ``trees/<commit>.json`` (path to size). The client is imported on
first use. Tokens are the client's (``MODELSCOPE_API_TOKEN``, ``modelscope login``).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from twinkle_hub.errors import (
    AccessDeniedError,
    HubConnectionError,
    HubError,
    MissingClientError,
    NotCachedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from twinkle_hub.patterns import matching
from twinkle_hub.repository import RepoRef, RepoType, check_revision

if TYPE_CHECKING:
    from modelscope_hub import HubApi

DEFAULT_REVISION = "master"


class MsHub:
    """Repositories on modelscope.cn, or on another server with its protocol.

    Args:
        endpoint: the server's URL; ``None``: what the client is configured for (``MODELSCOPE_ENDPOINT``).
        cache_dir: the cache; ``None``: the client's own (``MODELSCOPE_CACHE``), which it shares with other libraries.
        token: ``None``: the one that the client knows; ``""``: send none.
    """

    scheme = "ms"

    def __init__(self, *, endpoint: str | None = None, cache_dir: Path | None = None, token: str | None = None) -> None:
        self.endpoint = endpoint
        self.cache_dir = cache_dir
        self._token = token

    def resolve(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model", *, offline: bool = False) -> str:
        """The commit of ``revision`` (default ``master``)."""
        with self._explained(repo_id, revision):
            if offline:
                return self._cached_commit(self._cache(repo_id, repo_type), repo_id, revision)
            return self._listing(repo_id, revision, repo_type).commit

    def list_files(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model") -> list[str]:
        """The files of ``revision``."""
        with self._explained(repo_id, revision):
            return sorted(self._listing(repo_id, revision, repo_type).files)

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
        """The snapshot of the revision's commit in the cache. What is there already isn't read again to check it."""
        with self._explained(repo_id, revision):
            cache = self._cache(repo_id, repo_type)
            if offline:
                commit = self._cached_commit(cache, repo_id, revision)
                wanted = matching(_sizes(cache, commit), allow_patterns, ignore_patterns)
                if _missing(cache, commit, wanted):
                    raise self._not_cached(repo_id, revision)
                return cache / "snapshots" / commit
            listing = self._listing(repo_id, revision, repo_type)
            _write(
                cache / "trees" / f"{listing.commit}.json", json.dumps({path: row["Size"] for path, row in listing.files.items()})
            )
            missing = _missing(cache, listing.commit, matching(listing.files, allow_patterns, ignore_patterns))
            (cache / "snapshots" / listing.commit).mkdir(parents=True, exist_ok=True)
            if missing:
                self._client().download_repo(
                    repo_id,
                    repo_type,
                    revision=listing.commit,
                    local_dir=cache / "snapshots" / listing.commit,
                    file_list=[listing.files[path] for path in missing],
                )
            _write(cache / "refs" / (revision or DEFAULT_REVISION), listing.commit)
            return cache / "snapshots" / listing.commit

    def _listing(self, repo_id: str, revision: str | None, repo_type: RepoType) -> _Listing:
        name = revision or DEFAULT_REVISION
        legacy = self._client().legacy
        tree = f"{repo_type}s/{repo_id}/repo/{'tree' if repo_type == 'dataset' else 'files'}"
        # The client's own listing drops the field that says which commit it lists.
        page = legacy._request("GET", tree, params={"Revision": name, "Recursive": "False"}).json().get("Data") or {}
        if page.get("Files") is None:
            known = [str(row.get("Revision")) for row in legacy.list_revisions(repo_id, repo_type)]
            # The server has no error for an unknown revision: it answers 200, and null for the files.
            raise RevisionNotFoundError(
                f"{RepoRef(self.scheme, repo_id, revision)}: the repository has no branch, tag or commit {name!r}. "
                f"It has: {', '.join(known[:10]) or 'none'}."
            )
        if repo_type == "dataset":
            rows = legacy.list_dataset_files_paginated(repo_id, revision=name)
        else:
            rows = legacy.list_repo_files(repo_id, repo_type, revision=name)
        files = {row["Path"]: row for row in rows if row.get("Type") != "tree"}
        for path in files:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise HubError(f"{RepoRef(self.scheme, repo_id, revision)} lists a file outside of itself: {path!r}. Don't use it.")
        return _Listing(_commit(page.get("LatestCommitter") or {}, name, files.values()), files)

    def _cached_commit(self, cache: Path, repo_id: str, revision: str | None) -> str:
        name = revision or DEFAULT_REVISION
        if (cache / "refs" / name).is_file():
            return (cache / "refs" / name).read_text(encoding="utf-8")
        if (cache / "trees" / f"{name}.json").is_file():
            return name
        raise self._not_cached(repo_id, revision)

    def _cache(self, repo_id: str, repo_type: RepoType) -> Path:
        root = self.cache_dir or self._client()._config.cache_dir
        return Path(root) / f"{repo_type}s" / repo_id.replace("/", "--")

    def _not_cached(self, repo_id: str, revision: str | None) -> HubError:
        return NotCachedError(
            f"{RepoRef(self.scheme, repo_id, revision)}: the cache doesn't hold all the files that were asked for, and the network "
            f"isn't allowed (offline). Download it once online: unset TWINKLE_OFFLINE and HF_HUB_OFFLINE, and run the same again."
        )

    def _client(self) -> HubApi:
        try:
            from modelscope_hub import HubApi, HubConfig
        except ImportError as error:
            raise MissingClientError(
                "ms:// references need modelscope-hub, which isn't installed. Install it: pip install 'twinkle-hub[ms]'"
            ) from error
        return HubApi(HubConfig(endpoint=self.endpoint, token=self._token))

    @contextmanager
    def _explained(self, repo_id: str, revision: str | None) -> Iterator[None]:
        """Turn the client's errors into this package's."""
        reference = RepoRef(self.scheme, repo_id, revision)
        if revision is not None:
            check_revision(revision, str(reference))
        self._client()
        from modelscope_hub.errors import FileDownloadError
        from modelscope_hub.errors import HubError as ClientError
        from requests.exceptions import InvalidHeader, RequestException

        try:
            yield
        except InvalidHeader:
            # It quotes the header, and with it the token: neither may reach a traceback.
            raise AccessDeniedError(f"{reference}: the token can't be sent. Log in again: modelscope login") from None
        except FileDownloadError as error:
            raise _of_client(reference, next(iter(error.failed_files.values()), error)) from error
        except (ClientError, RequestException) as error:
            raise _of_client(reference, error) from error


class _Listing(NamedTuple):
    commit: str
    files: dict[str, dict[str, Any]]


def _commit(latest: Mapping[str, Any], revision: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """The commit that was listed. The server often gives eight digits of it only; the files that it touched have all forty."""
    full, short = latest.get("Id") or "", latest.get("ShortId") or ""
    if full:
        return str(full)
    if len(revision) == 40 and revision.startswith(short):
        return revision
    matching_rows = (str(row.get("Revision")) for row in rows if short and str(row.get("Revision")).startswith(short))
    return next(matching_rows, str(short or revision))


def _sizes(cache: Path, commit: str) -> dict[str, int]:
    sizes: dict[str, int] = json.loads((cache / "trees" / f"{commit}.json").read_text(encoding="utf-8"))
    return sizes


def _missing(cache: Path, commit: str, wanted: Iterable[str]) -> list[str]:
    sizes = _sizes(cache, commit)
    snapshot = cache / "snapshots" / commit
    return [path for path in wanted if not (snapshot / path).is_file() or (snapshot / path).stat().st_size != sizes[path]]


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as stream:
        stream.write(text)
    Path(stream.name).replace(file)


def _of_client(reference: RepoRef, error: BaseException) -> HubError:
    from modelscope_hub.errors import AuthenticationError, FileIntegrityError, NetworkError, NotExistError, PermissionDeniedError

    if isinstance(error, NotExistError):
        return RepositoryNotFoundError(
            f"{reference}: the hub has no such repository, or it is private. Check the name, and if it is a model or a data set; "
            f"if it is private, log in: modelscope login"
        )
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return AccessDeniedError(
            f"{reference}: the hub refuses access ({error.status_code}). Log in with an account that may read it: modelscope login"
        )
    if isinstance(error, FileIntegrityError):
        return HubError(f"{reference}: what arrived isn't what the hub lists, and was thrown away. Run the same again.")
    status = getattr(error, "status_code", None)
    if status is not None and not isinstance(error, NetworkError):
        return HubError(f"{reference}: the hub answered with status {status}. Try again later, or give a local path instead.")
    return HubConnectionError(
        f"{reference}: the hub can't be reached, or broke off ({type(error).__name__}). Check the network and MODELSCOPE_ENDPOINT, "
        f"then run the same again: what has arrived is kept. What is cached can be used with TWINKLE_OFFLINE=1."
    )
