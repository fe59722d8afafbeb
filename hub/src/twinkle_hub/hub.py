"""The hub protocol: what Twinkle asks of a place that holds repositories of files.

Three calls: which commit is this revision, which files does it hold, and give me a folder with them. A hub that can be published to
has a fourth, ``upload``. Plugins add hubs by implementing it (hook ``twinkle_register_hub``). Knows nothing of any hub, nor of what
the files mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from twinkle_hub.repository import RepoType


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far an upload has come: files and bytes that have arrived, of those that there are to send."""

    files: int
    total_files: int
    bytes: int
    total_bytes: int


@runtime_checkable
class Hub(Protocol):
    """A place that holds repositories of files, with revisions.

    Every method raises ``HubError`` (see ``twinkle_hub.errors`` for the causes that are told apart) with a message that names the
    reference, the cause and the next step. Tokens are the client's business: none is taken here, and none is ever in a message.
    """

    @property
    def scheme(self) -> str:
        """The scheme of this hub's references: ``hf`` in ``hf://owner/name``."""
        ...

    def resolve(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model", *, offline: bool = False) -> str:
        """The commit (an immutable name) that a branch or tag points to; ``None`` is the default branch.

        With ``offline`` the answer is what the cache holds for that revision.
        """
        ...

    def list_files(self, repo_id: str, revision: str | None = None, repo_type: RepoType = "model") -> list[str]:
        """The paths of the files of a revision: relative, with ``/``, sorted."""
        ...

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
        """A folder with the files of a revision, from the cache where it has them. Callers only read it.

        With patterns (``fnmatch`` on the whole relative path; a pattern ending in ``/`` means everything below) the folder holds
        at least the files that match an allowed pattern and no ignored one; others may be there too. With ``offline`` nothing
        goes over the network.
        """
        ...


@runtime_checkable
class WritableHub(Hub, Protocol):
    """A hub that can be published to."""

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
        """Publish the files of ``folder`` on a branch and return the commit that holds them.

        Files of the branch that the folder lacks stay. What tools leave behind (``.git``, ``__pycache__``, …) isn't sent. The same
        call again goes on where a failed one stopped, and changes nothing where everything has arrived.

        Args:
            revision: the branch; ``None`` is the hub's default branch. It is made where it isn't there.
            private: make the repository private where it isn't there yet. A public one is refused then, so that nothing gets
                public that wasn't meant to: ``False`` allows it.
            tag: a name for the new commit; a tag that is there already and points elsewhere is an error.
            token: instead of the one that the hub's client knows. It is never in an error.
            progress: called as files arrive, perhaps from another thread.
        """
        ...
