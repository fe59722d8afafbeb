"""The Hugging Face hub, through ``huggingface_hub`` and its cache.

Thin: the client downloads, resumes, caches and checks for completeness; this module turns its errors into ones that say what to do.
The client is imported on first use. Tokens are the client's (``HF_TOKEN``, ``hf auth login``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from twinkle_hub._huggingface_publication import Publication
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
from twinkle_hub.retries import DEFAULT, Retries, parse_retry_after

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_T = TypeVar("_T")


class HfHub:
    """Repositories on huggingface.co, or on another server with its protocol.

    Args:
        endpoint: the server's URL; ``None``: what the client is configured for (``HF_ENDPOINT``).
        cache_dir: the cache; ``None``: the client's own (``HF_HOME``), which it shares with other libraries.
        token: ``None``: the one that the client knows; ``False``: send none.
        retries: for reading from a busy hub and over broken connections, beyond what the client itself does.
    """

    scheme = "hf"

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
        token: str | bool | None = None,
        retries: Retries = DEFAULT,
    ) -> None:
        self.endpoint = endpoint
        self.cache_dir = cache_dir
        self.retries = retries
        self._token = token

    def resolve(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model", *, offline: bool = False) -> str:
        """The commit (40 hex digits) of ``revision`` (default ``main``)."""
        if offline:
            return self.download(repo_id, revision=revision, repo_type=repo_type, allow_patterns=[], offline=True).name
        reference = self._reference(repo_id, revision)
        commit = self._ask(reference, lambda: self._client().repo_info(repo_id, revision=revision, repo_type=repo_type).sha)
        if not commit:
            raise HubError(f"{reference}: the hub names no commit. Try again, or name one as the revision.")
        return commit

    def list_files(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model") -> list[str]:
        """The files of ``revision``."""
        reference = self._reference(repo_id, revision)
        return self._ask(reference, lambda: sorted(self._client().list_repo_files(repo_id, revision=revision, repo_type=repo_type)))

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
        """The snapshot in the client's cache. Where the hub can't be reached, a complete cached snapshot is used.

        Code comes from the hub itself: where another host is to serve it, that is an error, and nothing of it is fetched. Large
        files may come from other hosts, as is usual; those see no token.
        """
        reference = self._reference(repo_id, revision)
        allow = None if allow_patterns is None else list(allow_patterns)
        ignore = None if ignore_patterns is None else list(ignore_patterns)

        def snapshot(at: str | None, *, cached: bool) -> Path:
            return Path(
                self._client().snapshot_download(
                    repo_id,
                    revision=at,
                    repo_type=repo_type,
                    cache_dir=self.cache_dir,
                    allow_patterns=allow,
                    ignore_patterns=ignore,
                    local_files_only=cached,
                )
            )

        def fetch() -> Path:
            if offline:
                return snapshot(revision, cached=True)
            from huggingface_hub.errors import LocalEntryNotFoundError

            client = self._client()
            at = client.resolve_revision(repo_id, revision=revision, repo_type=repo_type, cache_dir=self.cache_dir)
            try:
                return snapshot(at, cached=True)
            except LocalEntryNotFoundError:
                paths = client.list_repo_files(repo_id, revision=at.resolved, repo_type=repo_type)
                check_paths(paths, reference)
                where = partial(_location, client, repo_id, repo_type, at.resolved)
                refuse_redirected_code(reference, client.endpoint, matching(paths, allow, ignore), where)
            return snapshot(at, cached=False)

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
        """Publish in one commit: either all of the files are there, or none. Large ones that have arrived aren't sent again."""
        content = Content.of(folder, allow_patterns, ignore_patterns)
        reference = self._reference(repo_id, revision)
        if tag is not None:
            check_revision(tag, str(reference.at(None)))

        with _explained(reference):
            publication = Publication(self._client(token), reference, repo_type, progress or (lambda _: None))
            publication.prepare(private=private)
            return publication.commit(content, message, tag)

    def _reference(self, repo_id: str, revision: str | None) -> RepoRef:
        reference = RepoRef(self.scheme, repo_id, revision)
        if revision is not None:
            check_revision(revision, str(reference))
        return reference

    def _ask(self, reference: RepoRef, act: Callable[[], _T]) -> _T:
        def once() -> _T:
            with _explained(reference):
                return act()

        return self.retries.run(once)

    def _client(self, token: str | None = None) -> HfApi:
        from huggingface_hub import HfApi, get_token

        chosen = self._token if token is None else token
        check_sendable(get_token() if chosen in (None, True) else chosen, "hf auth login")
        return HfApi(endpoint=self.endpoint, token=chosen, library_name="twinkle-hub")


def _location(client: HfApi, repo_id: str, repo_type: RepoType, commit: str, path: str) -> str:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repo_id, path, repo_type=repo_type, revision=commit, endpoint=client.endpoint)
    return client.get_hf_file_metadata(url=url).location


@contextmanager
def _explained(reference: RepoRef) -> Iterator[None]:
    """Turn the client's errors into this package's."""
    try:
        from httpx2 import HTTPError, LocalProtocolError
        from huggingface_hub import errors as hf
    except ImportError as error:
        raise MissingClientError(
            f"{reference} needs huggingface_hub, which isn't installed. Install it: pip install 'twinkle-hub[hf]'"
        ) from error
    try:
        yield
    except hf.GatedRepoError as error:
        raise AccessDeniedError(
            f"{reference} is gated: its owner asks you to accept conditions on its page first. Do that, then log in: hf auth login"
        ) from error
    except hf.RepositoryNotFoundError as error:
        raise RepositoryNotFoundError(
            f"{reference}: the hub has no such repository, or it is private. Check the name, and if it is a model or a data set; "
            f"if it is private, log in: hf auth login"
        ) from error
    except hf.RevisionNotFoundError as error:
        raise RevisionNotFoundError(
            f"{reference}: the repository has no branch, tag or commit {reference.revision or 'main'!r}. "
            f"Leave the revision out for the default branch, or look at the repository's history."
        ) from error
    except (hf.LocalEntryNotFoundError, hf.RevisionResolutionError) as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, hf.OfflineModeIsEnabled):
            raise NotCachedError.of(reference) from error
        raise _of_transport(reference, cause) from error
    except hf.OfflineModeIsEnabled as error:
        raise NotCachedError.of(reference) from error
    except hf.HFValidationError as error:
        raise HubError(
            f"{reference} isn't a name that Hugging Face allows: owner/name, of letters, digits, '-', '_' and '.'."
        ) from error
    except (ValueError, KeyError) as error:  # as the client reads what isn't JSON, or lacks what it looks for
        raise HubError(
            f"{reference}: what answered isn't a hub, or it is broken ({type(error).__name__}). "
            f"Check HF_ENDPOINT, and try again later."
        ) from error
    except RuntimeError as error:  # of a file that couldn't be sent; why is its cause
        if isinstance(error.__cause__, HTTPError | ConnectionError):
            raise _of_transport(reference, error.__cause__) from error
        raise
    except (HTTPError, ConnectionError) as error:
        # The transport quotes a malformed header in full, and the token is in one: that must not reach a traceback.
        raise _of_transport(reference, error) from (None if isinstance(error, LocalProtocolError) else error)


def _of_transport(reference: RepoRef, error: BaseException) -> HubError:
    from httpx2 import LocalProtocolError

    response = getattr(error, "response", None)
    status, headers = (None, {}) if response is None else (response.status_code, response.headers)
    if status in (401, 403) or isinstance(error, LocalProtocolError):
        said = "the token can't be sent" if status is None else f"the hub refuses access ({status})"
        return AccessDeniedError(f"{reference}: {said}. Log in with an account that may do this: hf auth login")
    if status == 429 or (status is not None and status >= 500):
        return HubBusyError.of(reference, status, parse_retry_after(headers.get("Retry-After")))
    if status is not None:
        return HubError(f"{reference}: the hub answered with status {status}. Check the name, or give a local path instead.")
    return HubConnectionError(
        f"{reference}: the hub can't be reached, or broke off ({type(error).__name__}). "
        f"Check the network and HF_ENDPOINT, then run the same again: what has arrived is kept."
    )
