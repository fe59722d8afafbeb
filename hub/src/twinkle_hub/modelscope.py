"""The ModelScope hub, through ``modelscope_hub`` (the client without the model library) and its cache.

The client downloads, resumes and checks hashes. This module adds what it lacks: a revision is resolved to its commit first, so that
a snapshot never changes; a snapshot counts as cached when it is complete; and errors say what to do. The client is imported on
first use. Tokens are the client's (``MODELSCOPE_API_TOKEN``, ``modelscope login``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from twinkle_hub._modelscope_cache import RepositoryCache
from twinkle_hub._modelscope_publication import Publication
from twinkle_hub._redirects import refuse_redirected_code
from twinkle_hub._tokens import check_sendable
from twinkle_hub.content import Content
from twinkle_hub.errors import (
    AccessDeniedError,
    HubBusyError,
    HubConnectionError,
    HubError,
    MissingClientError,
    NotCachedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from twinkle_hub.hub import UploadProgress
from twinkle_hub.patterns import matching
from twinkle_hub.repository import RepoRef, RepoType, check_paths, check_revision
from twinkle_hub.retries import DEFAULT, Retries

if TYPE_CHECKING:
    from modelscope_hub import HubApi

DEFAULT_REVISION = "master"

_T = TypeVar("_T")
_Row = Mapping[str, Any]  # a file as the server lists it: Path, Size, Sha256, Type, Revision


class MsHub:
    """Repositories on modelscope.cn, or on another server with its protocol.

    Args:
        endpoint: the server's URL; ``None``: what the client is configured for (``MODELSCOPE_ENDPOINT``).
        cache_dir: the cache; ``None``: the client's own (``MODELSCOPE_CACHE``), which it shares with other libraries.
        token: ``None``: the one that the client knows; ``""``: send none.
        retries: for reading from a busy hub and over broken connections, beyond what the client itself does.
    """

    scheme = "ms"

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
        token: str | None = None,
        retries: Retries = DEFAULT,
    ) -> None:
        self.endpoint = endpoint
        self.cache_dir = cache_dir
        self.retries = retries
        self._token = token

    def resolve(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model", *, offline: bool = False) -> str:
        """The commit of ``revision`` (default ``master``)."""
        reference = RepoRef(self.scheme, repo_id, revision)
        if not offline:
            return self._ask(reference, lambda: self._listing(reference, repo_type)[0])
        commit = self._ask(reference, lambda: self._cache(repo_id, repo_type).commit(revision or DEFAULT_REVISION))
        if commit is None:
            raise NotCachedError.of(reference)
        return commit

    def list_files(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model") -> list[str]:
        """The files of ``revision``."""
        reference = RepoRef(self.scheme, repo_id, revision)
        return self._ask(reference, lambda: sorted(self._listing(reference, repo_type)[1]))

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
        """The snapshot of the revision's commit in the cache. A file that is there isn't read again to check its hash.

        Code comes from the hub itself: where another host is to serve it, that is an error, and nothing of it is fetched.
        """
        reference = RepoRef(self.scheme, repo_id, revision)

        def fetch() -> Path:
            cache = self._cache(repo_id, repo_type)
            if offline or _is_commit(revision):
                cached = cache.snapshot(revision or DEFAULT_REVISION, allow_patterns, ignore_patterns)
                if cached is not None:
                    return cached
            if offline:
                return self._cached_by_others(reference, repo_type)
            commit, files = self._listing(reference, repo_type)
            wanted = matching(files, allow_patterns, ignore_patterns)
            missing = cache.add_tree(commit, {path: int(row["Size"]) for path, row in files.items()}, wanted)
            if missing:
                self._fetch(reference, repo_type, commit, cache.folder(commit), [files[path] for path in missing])
            cache.add_reference(revision or DEFAULT_REVISION, commit)
            return cache.folder(commit)

        return self._ask(reference, fetch)

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
        """Publish on a branch that is there. Many or large files may take several commits; the last one is returned and tagged."""
        content = Content.of(folder, allow_patterns, ignore_patterns)
        reference = RepoRef(self.scheme, repo_id, revision)
        if tag is not None:
            check_revision(tag, str(reference.at(None)))

        with _explained(reference):
            publication = Publication(self._client(token), reference.at(revision or DEFAULT_REVISION), repo_type)
            publication.prepare(private=private)
            publication.send(content, message, progress or (lambda _: None))
            writer = MsHub(endpoint=self.endpoint, cache_dir=self.cache_dir, token=self._token if token is None else token)
            commit = writer._listing(reference, repo_type)[0]
            if tag is not None:
                publication.tag(tag, commit, lambda: writer._listing(reference.at(tag), repo_type)[0])
            return commit

    def _ask(self, reference: RepoRef, act: Callable[[], _T]) -> _T:
        def once() -> _T:
            with _explained(reference):
                return act()

        return self.retries.run(once)

    def _fetch(self, reference: RepoRef, repo_type: RepoType, commit: str, folder: Path, rows: Sequence[_Row]) -> None:
        from modelscope_hub.errors import raise_for_status

        client = self._client()
        legacy = client.legacy

        def location(path: str) -> str | None:
            url = legacy.get_download_url(reference.repo_id, repo_type, path, commit)
            headers, limit = legacy._headers(), legacy._timeout
            with legacy._session.get(url, headers=headers, allow_redirects=False, stream=True, timeout=limit) as answer:
                raise_for_status(answer)
                return answer.headers.get("Location")

        refuse_redirected_code(reference, legacy.endpoint, [row["Path"] for row in rows], location)
        client.download_repo(reference.repo_id, repo_type, revision=commit, local_dir=folder, file_list=[dict(row) for row in rows])

    def _listing(self, reference: RepoRef, repo_type: RepoType) -> tuple[str, dict[str, _Row]]:
        """The commit of a revision, and its files: path to the server's row."""
        repo_id, revision = reference.repo_id, reference.revision or DEFAULT_REVISION
        legacy = self._client().legacy
        tree = f"{repo_type}s/{repo_id}/repo/{'tree' if repo_type == 'dataset' else 'files'}"
        # The client's listing drops the field that says which commit it is of.
        page = legacy._request("GET", tree, params={"Revision": revision, "Recursive": "False"}).json().get("Data") or {}
        if page.get("Files") is None:
            # An unknown revision is no error to the server: it answers 200, with null for the files.
            known = [str(row.get("Revision")) for row in legacy.list_revisions(repo_id, repo_type)]
            raise RevisionNotFoundError(
                f"{reference}: the repository has no branch, tag or commit {revision!r}. It has: {', '.join(known[:10]) or 'none'}."
            )
        if repo_type == "dataset":
            rows = legacy.list_dataset_files_paginated(repo_id, revision=revision)
        else:
            rows = legacy.list_repo_files(repo_id, repo_type, revision=revision)
        files = {row["Path"]: row for row in rows if row.get("Type") != "tree"}
        check_paths(files, reference)
        commit = _commit(page.get("LatestCommitter") or {}, revision, files.values())
        check_revision(commit, f"the commit that the hub names for {reference}")  # it becomes a folder's name
        return commit, files

    def _cache(self, repo_id: str, repo_type: RepoType) -> RepositoryCache:
        root = Path(self._client()._config.cache_dir)
        return RepositoryCache(root / f"{repo_type}s" / repo_id.replace("/", "--"))

    def _cached_by_others(self, reference: RepoRef, repo_type: RepoType) -> Path:
        """What another program downloaded with the client, as that left it."""
        from modelscope_hub.errors import CacheNotFound

        try:
            folder = self._client().download_repo(reference.repo_id, repo_type, revision=reference.revision, local_files_only=True)
        except CacheNotFound as error:
            raise NotCachedError.of(reference) from error
        if _is_commit(folder.name):  # this module's own, and it isn't complete
            raise NotCachedError.of(reference)
        return Path(folder)

    def _client(self, token: str | None = None) -> HubApi:
        from modelscope_hub import HubApi, HubConfig

        where = {} if self.cache_dir is None else {"cache_dir": self.cache_dir}
        config = HubConfig(endpoint=self.endpoint, token=self._token if token is None else token, **where)
        check_sendable(config.token, "modelscope login")
        client = HubApi(config)
        for session in (client.legacy._session, client.legacy._read_session):
            for adapter in session.adapters.values():
                # It would wait for as long as the hub asks, an hour maybe. Retries does that, with a limit.
                adapter.max_retries = adapter.max_retries.new(respect_retry_after_header=False, status_forcelist=frozenset())
        return client


@contextmanager
def _explained(reference: RepoRef) -> Iterator[None]:
    """Turn the client's errors into this package's."""
    if reference.revision is not None:
        check_revision(reference.revision, str(reference))
    try:
        from modelscope_hub.errors import FileDownloadError
        from modelscope_hub.errors import HubError as ClientError
        from requests.exceptions import InvalidHeader, RequestException
    except ImportError as error:
        raise MissingClientError(
            f"{reference} needs modelscope-hub, which isn't installed. Install it: pip install 'twinkle-hub[ms]'"
        ) from error
    try:
        yield
    except InvalidHeader:
        # It quotes the header, and with it the token: neither may reach a traceback.
        raise AccessDeniedError(f"{reference}: the token can't be sent. Log in again: modelscope login") from None
    except FileDownloadError as error:
        raise _of_client(reference, next(iter(error.failed_files.values()), error)) from error
    except (ClientError, RequestException) as error:
        raise _of_client(reference, error) from error


def _commit(latest: Mapping[str, Any], revision: str, rows: Iterable[_Row]) -> str:
    """The commit that was listed. The server often tells eight digits of it only; the files that it touched have all forty."""
    full, short = str(latest.get("Id") or ""), str(latest.get("ShortId") or "")
    if full or not short:
        return full or revision
    if _is_commit(revision) and revision.startswith(short):
        return revision
    return next((str(row["Revision"]) for row in rows if str(row.get("Revision")).startswith(short)), short)


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def _of_client(reference: RepoRef, error: BaseException) -> HubError:
    from modelscope_hub.errors import (
        AuthenticationError,
        FileIntegrityError,
        NotExistError,
        PermissionDeniedError,
        RateLimitError,
        ServerError,
    )

    if isinstance(error, NotExistError):
        return RepositoryNotFoundError(
            f"{reference}: the hub has no such repository, or it is private. Check the name, and if it is a model or a data set; "
            f"if it is private, log in: modelscope login"
        )
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return AccessDeniedError(
            f"{reference}: the hub refuses access ({error.status_code}). Log in with an account that may do this: modelscope login"
        )
    if isinstance(error, FileIntegrityError):
        return HubError(f"{reference}: what arrived isn't what the hub lists, and was thrown away. Run the same again.")
    status = getattr(error, "status_code", None)
    if isinstance(error, ServerError | RateLimitError):  # no status where the client gave up repeating the request
        return HubBusyError.of(reference, status or "5xx", getattr(error, "retry_after", None))
    if status is not None:
        return HubError(f"{reference}: the hub answered with status {status}. Check the name, or give a local path instead.")
    return HubConnectionError(
        f"{reference}: the hub can't be reached, or broke off ({type(error).__name__}). Check the network and MODELSCOPE_ENDPOINT, "
        f"then run the same again: what has arrived is kept. What is cached can be used with TWINKLE_OFFLINE=1."
    )
