"""The hub protocol: what Twinkle asks of a place that holds repositories of files.

Three calls: which commit is this revision, which files does it hold, and give me a folder with them. Plugins add hubs by
implementing it (hook ``twinkle_register_hub``). Knows nothing of any hub, nor of what the files mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from twinkle_hub.repository import RepoType


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
