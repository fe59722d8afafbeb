"""The one door to component code: ``authorize(request)`` gives a ``Grant``, and the loader takes nothing else.

Installed plugins are allowed: whoever could install them could already run code. Code from a hub is denied unless something speaks
for it: the operator's policy, the lock, what the user decided before, the environment, or an answer given now. Knows nothing of how
code is fetched or imported, nor of what rules look like.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn, Protocol

from twinkle_registry.errors import TrustError

VARIABLE = "TWINKLE_TRUST_REMOTE_CODE"

# A switch that lets strangers in takes nothing for a yes that isn't one ("never", "none", a mistyped "fasle").
_YES = frozenset({"1", "true", "yes", "on", "y", "t"})

_logger = logging.getLogger(__name__)
_from_authorize = object()

Answer = Literal["digest", "owner", "no"]
"""What a person answers when asked: allow these files, allow this owner's components of this kind, or don't."""


@dataclass(frozen=True)
class LoadRequest:
    """Code that somebody wants to load.

    Attributes:
        source: where it lies.
        reference: how it was asked for.
        kind: the kind of component, or ``hooks``; ``stored`` where a class is unpickled and nobody knows what it was loaded as.
        entry: ``module:Attribute``, or the module; ``None`` while it isn't known yet, which is before a hub was asked.
        distribution: the installed distribution, with its version; ``None`` for a hub.
        package: the installed package; ``None`` for a hub.
        repository: the repository on a hub, with its scheme: the one that the files came from, or will come from. For files in
            the store of which nobody knows that it is ``sha256:<digest>``; ``None`` for an installed plugin.
        revision: the revision that was asked for; ``None`` for the default. Where only the digest was asked for, the commit.
        digest: the SHA-256 (64 hex digits) of the repository's files, once they have arrived.
        commit: the commit that the files are of, once it is known.
        needs: the packages that the manifest says it needs.
        pure: the manifest says that it needs no network, files, GPU or global state. A claim of the repository's, no more.
        capabilities: what it can do, as far as a static scan of its files can tell (``network``, ``subprocess``, ``files``,
            ``native``, ``dynamic-code``, ``pickle``, …). Empty until somebody's rules need to know: the files are scanned then.
        among_others: the code lies among files that are no code (a model's weights), and something else than the registry will
            execute it. The digest is that of the code alone, and the owner is what it can be allowed by.
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
    commit: str | None = None
    needs: tuple[str, ...] = ()
    pure: bool = False
    capabilities: tuple[str, ...] = ()
    among_others: bool = False

    @property
    def owner(self) -> str | None:
        """Whose repository it is: ``hf://acme`` for ``hf://acme/focal``; for ``file`` the absolute folder, ``file:///a/b``.

        ``None`` for an installed plugin, and where nobody knows what repository the files came from.
        """
        scheme, separator, path = (self.repository or "").partition("://")
        if not separator:
            return None
        return f"{scheme}://{path if scheme == 'file' else path.partition('/')[0]}"


@dataclass(frozen=True)
class Grant:
    """Permission to load what ``request`` says, and nothing else. Only ``authorize`` makes one.

    Attributes:
        request: what may be loaded.
        reason: what allowed it.
    """

    request: LoadRequest
    _origin: object = field(repr=False)
    reason: str = ""

    def __post_init__(self) -> None:
        if self._origin is not _from_authorize:
            raise TrustError("A Grant is what authorize() returns; it can't be made in another way.")

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Grant is for the process that asked for it, and doesn't pickle; send the LoadRequest.")


class Opinion(Protocol):
    """What a set of rules says of a request; ``twinkle_registry.policy.Decision`` is one."""

    @property
    def allowed(self) -> bool | None:
        """Whether it may be loaded; ``None`` where no rule speaks."""
        ...

    @property
    def rule(self) -> str:
        """Which rule decides."""
        ...

    @property
    def why(self) -> str:
        """The reason that the rule gives."""
        ...


class Rules(Protocol):
    """Who is asked before code from a hub is loaded."""

    def examined(self, request: LoadRequest) -> LoadRequest:
        """``request`` with what the rules want to know of files that have arrived."""
        ...

    def revoked(self, digest: str | None) -> str | None:
        """Why files with this digest must not be loaded any more, or ``None``."""
        ...

    def operator(self, request: LoadRequest) -> Opinion | None:
        """What the operator's policy says, or ``None`` where there is none."""
        ...

    def locked(self, request: LoadRequest) -> bool:
        """Whether the project's lock holds these very files."""
        ...

    def user(self, request: LoadRequest) -> Opinion | None:
        """What the user decided before, or ``None``."""
        ...

    def may_allow(self, request: LoadRequest) -> bool:
        """Whether it could be allowed once the files have arrived: by a rule on digests or capabilities, or by a person."""
        ...

    def ask(self, request: LoadRequest) -> Answer | None:
        """What a person answers now; ``None`` where nobody can be, or shall be, asked."""
        ...


def authorize(
    request: LoadRequest,
    *,
    rules: Rules | None = None,
    denial: Callable[[LoadRequest], str | None] | None = None,
    warn: Callable[[str], None] = _logger.warning,
) -> Grant:
    """Return the permission to load what ``request`` says.

    For code from a hub the first of these decides: a revoked digest (no), the operator's policy (no), what the user revoked (no), a
    plugin's denial (no), the operator's policy (yes), the lock, the user's earlier decisions, ``TWINKLE_TRUST_REMOTE_CODE``, and
    the answer of a person who is asked.

    Args:
        request: what somebody wants to load.
        rules: who is asked about code from a hub; without any, only the environment can allow it.
        denial: the plugins' say, in every case; a reason that it returns is a refusal.
        warn: is told when the environment allows code from a hub.

    Raises:
        TrustError: it isn't allowed; says what would allow it.
    """
    if rules is not None and request.source == "hub":
        request = rules.examined(request)
    _refuse(request, rules, denial)
    if request.source == "installed":
        return Grant(request, _from_authorize, "it is installed")
    allowed = _permission(request, rules, warn) or _answer(request, rules)
    if allowed is None:
        raise not_allowed(request)
    return Grant(request, _from_authorize, allowed)


def check_fetch(
    request: LoadRequest,
    *,
    rules: Rules | None = None,
    denial: Callable[[LoadRequest], str | None] | None = None,
    warn: Callable[[str], None] = _logger.warning,
) -> None:
    """Return if the files of ``request`` may be fetched: nothing denies it, and something allows it, or could once they are known.

    Gives no permission to execute them.

    Raises:
        TrustError: it can be said already that they won't be allowed; says what would allow them.
    """
    _refuse(request, rules, denial)
    if _permission(request, rules, warn) is None and not (rules is not None and rules.may_allow(request)):
        raise not_allowed(request)


def not_allowed(request: LoadRequest, why: str = "nothing allows it to be loaded") -> TrustError:
    """The error that says that nothing speaks for ``request``, and which commands would."""
    if request.among_others:
        return TrustError(
            f"{request.reference!r} brings code of its own (sha256:{request.digest}), and {why}. Read its Python files first. To "
            f"allow what its owner publishes: twinkle hub trust --owner {request.owner} --kind {request.kind}. To trust all code "
            f"from hubs in one process, start it with {VARIABLE}=1."
        )
    return TrustError(
        f"{request.reference!r} is code from a hub ({request.repository}), and {why}. See what is in it: "
        f"twinkle hub info {request.reference}. To allow it: twinkle hub trust {request.reference}, or twinkle hub add "
        f"{request.reference}, which also pins it in twinkle.lock. To trust all code from hubs in one process, start it with "
        f"{VARIABLE}=1."
    )


def environment_allows() -> bool:
    """Whether this process was started with ``TWINKLE_TRUST_REMOTE_CODE``."""
    return os.environ.get(VARIABLE, "").strip().lower() in _YES


def _refuse(request: LoadRequest, rules: Rules | None, denial: Callable[[LoadRequest], str | None] | None) -> None:
    """Raise if ``request`` must not be loaded, whatever speaks for it."""
    if rules is not None and request.source == "hub":
        if reason := rules.revoked(request.digest):
            raise _denied(request, f"its files are revoked: {reason}")
        _heed(request, rules.operator(request))
        _heed(request, rules.user(request))
    if denial and (reason := denial(request)):
        raise _denied(request, reason)


def _permission(request: LoadRequest, rules: Rules | None, warn: Callable[[str], None]) -> str | None:
    """What allows ``request`` without asking anybody, or ``None``."""
    if rules is not None:
        opinion = rules.operator(request)
        if opinion is not None and opinion.allowed:
            return opinion.rule
        if rules.locked(request):
            return "twinkle.lock"
        opinion = rules.user(request)
        if opinion is not None and opinion.allowed:
            return opinion.rule
    if environment_allows():
        warn(f"{VARIABLE}={os.environ[VARIABLE]} allows the code of {request.repository} to be loaded.")
        return VARIABLE
    return None


def _answer(request: LoadRequest, rules: Rules | None) -> str | None:
    """What a person allows, or ``None`` where nobody is asked."""
    answer = rules.ask(request) if rules is not None else None
    if answer == "no":
        raise not_allowed(request, "whoever was asked said no")
    return None if answer is None else f"the answer {answer!r}"


def _heed(request: LoadRequest, opinion: Opinion | None) -> None:
    if opinion is not None and opinion.allowed is False:
        raise _denied(request, f"{opinion.rule} denies it: {opinion.why}")


def _denied(request: LoadRequest, reason: str) -> TrustError:
    return TrustError(f"{request.reference!r} may not be loaded: {reason}")
