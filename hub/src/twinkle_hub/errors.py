"""The root of Twinkle's errors, and the errors of hubs.

It stands in this distribution because this is the lowest one; ``twinkle.errors`` is where people import from. Each error takes
one argument, the message for a person: it names the reference, the cause and the next step, and never holds a token.
"""

from __future__ import annotations


class TwinkleError(Exception):
    """The base of every error that Twinkle raises on purpose."""


class HubError(TwinkleError, OSError):
    """A repository can't be resolved, fetched or read; names the reference, and what to do next."""


class RepositoryNotFoundError(HubError, FileNotFoundError):
    """The hub has no such repository, or doesn't show it to this user."""


class RevisionNotFoundError(HubError, FileNotFoundError):
    """The repository has no such branch, tag or commit."""


class AccessDeniedError(HubError, PermissionError):
    """The hub refuses the repository to this user: not logged in, or not allowed."""


class HubConnectionError(HubError, ConnectionError):
    """The hub can't be reached, or broke off; what was cached before is untouched."""


class HubBusyError(HubError):
    """The hub is there, but can't answer now: too many requests (429), or it fails (5xx). Trying again later may help.

    Attributes:
        retry_after: seconds that the hub asks to wait (``Retry-After``), where it says.
    """

    retry_after: float | None = None

    @classmethod
    def of(cls, reference: object, status: int | str, retry_after: float | None = None) -> HubBusyError:
        """The error for ``reference``, answered with ``status``."""
        after = "later" if retry_after is None else f"in {retry_after:g} seconds, as it asks"
        error = cls(f"{reference}: the hub answered with status {status}. Try again {after}, or give a local path instead.")
        error.retry_after = retry_after
        return error


class NotCachedError(HubError, FileNotFoundError):
    """The network isn't allowed (offline), and the cache doesn't hold what was asked for."""

    @classmethod
    def of(cls, reference: object) -> NotCachedError:
        """The error for ``reference``."""
        return cls(
            f"{reference}: the cache doesn't hold all the files that were asked for, and the network isn't allowed (offline). "
            f"Download it once online: unset TWINKLE_OFFLINE and HF_HUB_OFFLINE, and run the same again."
        )


class MissingClientError(HubError):
    """The hub's own client isn't installed; the message holds the command that installs it."""
