"""The one door to component code: ``authorize(request)`` gives a ``Grant``, and the loader takes nothing else.

Installed plugins are allowed: whoever could install them could already run code. Code from a hub is denied unless this process was
started with ``TWINKLE_TRUST_REMOTE_CODE``. Knows nothing of how code is fetched or imported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from twinkle_registry.errors import TrustError

VARIABLE = "TWINKLE_TRUST_REMOTE_CODE"

# A switch that lets strangers in takes nothing for a yes that isn't one ("never", "none", a mistyped "fasle").
_YES = frozenset({"1", "true", "yes", "on", "y", "t"})

_logger = logging.getLogger(__name__)
_from_authorize = object()


@dataclass(frozen=True)
class LoadRequest:
    """Code that somebody wants to load.

    Attributes:
        source: where it lies.
        reference: how it was asked for.
        kind: the kind of component, or ``hooks``.
        entry: ``module:Attribute``, or the module; ``None`` while it isn't known yet, which is before a hub was asked.
        distribution: the installed distribution, with its version; ``None`` for a hub.
        package: the installed package; ``None`` for a hub.
        repository: the repository on a hub, with its scheme; ``None`` for an installed plugin.
        revision: the revision that was asked for, or the commit once it is known.
        digest: the SHA-256 (64 hex digits) of the repository's files, once they have arrived.
    """

    source: Literal["installed", "hub"]
    reference: str
    kind: str
    entry: str | None = None
    distribution: str | None = None
    package: str | None = None
    repository: str | None = None
    revision: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Grant:
    """Permission to load what ``request`` says, and nothing else. Only ``authorize`` makes one."""

    request: LoadRequest
    _origin: object = field(repr=False)

    def __post_init__(self) -> None:
        if self._origin is not _from_authorize:
            raise TrustError("A Grant is what authorize() returns; it can't be made in another way.")

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Grant is for the process that asked for it, and doesn't pickle; send the LoadRequest.")


def authorize(
    request: LoadRequest,
    *,
    denial: Callable[[LoadRequest], str | None] | None = None,
    warn: Callable[[str], None] = _logger.warning,
) -> Grant:
    """Return the permission to load what ``request`` says.

    Args:
        request: what somebody wants to load.
        denial: asked in every case; a reason that it returns is a refusal.
        warn: is told when code from a hub is allowed.

    Raises:
        TrustError: it isn't allowed; says what would allow it.
    """
    if request.source == "hub" and os.environ.get(VARIABLE, "").strip().lower() not in _YES:
        raise TrustError(
            f"{request.reference!r} is code from a hub ({request.repository}), and nothing allows it to be loaded. "
            f"Read the code first. To trust all code from hubs in one process, start it with {VARIABLE}=1."
        )
    if denial and (reason := denial(request)):
        raise TrustError(f"{request.reference!r} may not be loaded: {reason}")
    if request.source == "hub":
        warn(f"{VARIABLE}={os.environ[VARIABLE]} allows the code of {request.repository} to be loaded.")
    return Grant(request, _from_authorize)
