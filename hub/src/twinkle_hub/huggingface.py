"""The Hugging Face hub, through ``huggingface_hub`` and its cache.

Thin: the client downloads, resumes, caches and checks for completeness; this module turns its errors into ones that say what to do.
The client is imported on first use. Tokens are the client's (``HF_TOKEN``, ``hf auth login``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from twinkle_hub.errors import (
    AccessDeniedError,
    HubConnectionError,
    HubError,
    MissingClientError,
    NotCachedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from twinkle_hub.repository import RepoRef, RepoType, check_revision

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class HfHub:
    """Repositories on huggingface.co, or on another server with its protocol.

    Args:
        endpoint: the server's URL; ``None``: what the client is configured for (``HF_ENDPOINT``).
        cache_dir: the cache; ``None``: the client's own (``HF_HOME``), which it shares with other libraries.
        token: ``None``: the one that the client knows; ``False``: send none.
    """

    scheme = "hf"

    def __init__(self, *, endpoint: str | None = None, cache_dir: Path | None = None, token: str | bool | None = None) -> None:
        self.endpoint = endpoint
        self.cache_dir = cache_dir
        self._token = token

    def resolve(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model", *, offline: bool = False) -> str:
        """The commit (40 hex digits) of ``revision`` (default ``main``)."""
        reference = self._reference(repo_id, revision)
        if offline:
            return self.download(repo_id, revision=revision, repo_type=repo_type, allow_patterns=[], offline=True).name
        with _explained(reference):
            commit = self._client().repo_info(repo_id, revision=revision, repo_type=repo_type).sha
        if not commit:
            raise HubError(f"{reference}: the hub names no commit. Try again, or name one as the revision.")
        return commit

    def list_files(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model") -> list[str]:
        """The files of ``revision``."""
        with _explained(self._reference(repo_id, revision)):
            return sorted(self._client().list_repo_files(repo_id, revision=revision, repo_type=repo_type))

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
        """The snapshot in the client's cache. Where the hub can't be reached, a complete cached snapshot is used."""
        with _explained(self._reference(repo_id, revision)):
            folder = self._client().snapshot_download(
                repo_id,
                revision=revision,
                repo_type=repo_type,
                cache_dir=self.cache_dir,
                allow_patterns=None if allow_patterns is None else list(allow_patterns),
                ignore_patterns=None if ignore_patterns is None else list(ignore_patterns),
                local_files_only=offline,
            )
        return Path(folder)

    def _reference(self, repo_id: str, revision: str | None) -> RepoRef:
        reference = RepoRef(self.scheme, repo_id, revision)
        if revision is not None:
            check_revision(revision, str(reference))
        return reference

    def _client(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self._token, library_name="twinkle-hub")


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
    except hf.LocalEntryNotFoundError as error:
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
    except (HTTPError, ConnectionError) as error:
        # The transport quotes a malformed header in full, and the token is in one: that must not reach a traceback.
        raise _of_transport(reference, error) from (None if isinstance(error, LocalProtocolError) else error)


def _of_transport(reference: RepoRef, error: BaseException) -> HubError:
    from httpx2 import LocalProtocolError

    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    if status in (401, 403) or isinstance(error, LocalProtocolError):
        said = "the token can't be sent" if status is None else f"the hub refuses access ({status})"
        return AccessDeniedError(f"{reference}: {said}. Log in with an account that may read it: hf auth login")
    if status is not None:
        return HubError(f"{reference}: the hub answered with status {status}. Try again later, or give a local path instead.")
    return HubConnectionError(
        f"{reference}: the hub can't be reached, or broke off ({type(error).__name__}). "
        f"Check the network and HF_ENDPOINT, then run the same again: what has arrived is kept."
    )
