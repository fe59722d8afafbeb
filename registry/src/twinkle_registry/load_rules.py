"""Who is asked before code from a hub is loaded: policies, the lock, the user's decisions, and a person at the terminal.

``LoadRules`` gathers them for ``trust.authorize``, reads each when it is first needed, and again when it may have changed. Knows
nothing of fetching; to look into files that have arrived is the caller's ``examine``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from twinkle_registry.trust import Answer, LoadRequest, Opinion

if TYPE_CHECKING:
    from twinkle_registry.inspection import Inspection
    from twinkle_registry.lock import LockFile
    from twinkle_registry.policies import Policies
    from twinkle_registry.policy import Policy

_logger = logging.getLogger(__name__)

READ_AGAIN_S = 0.05
"""How long the operator's policy and the revocations hold before they are read again: reading takes up to a millisecond."""


class LoadRules:
    """The rules of one registry; ``twinkle_registry.trust.Rules`` says what each method answers.

    Args:
        home: Twinkle's folder.
        checks_loads: whether there is any plugin that implements ``twinkle_check_load``, and so may want to know capabilities.
        lock: the project's lock.
        examine: looks into files that have arrived; ``None`` where they haven't.
        asker: asks a person; ``None`` where nobody can be asked.
    """

    def __init__(
        self,
        *,
        home: Path,
        checks_loads: Callable[[], bool],
        lock: Callable[[], LockFile],
        examine: Callable[[LoadRequest], Inspection | None],
        asker: Callable[[Inspection], Answer] | None,
    ) -> None:
        self._home = home
        self._checks_loads = checks_loads
        self._lock = lock
        self._examine = examine
        self._asker = asker
        self._capabilities: dict[str, tuple[str, ...]] = {}
        self._refused: set[str] = set()
        self._warned_of_lock = False
        self._policies: tuple[float, str | None, Policies] | None = None

    def examined(self, request: LoadRequest) -> LoadRequest:
        """``request`` with its capabilities, where a rule or a plugin may want to know them and the files have arrived."""
        if request.digest is None or request.capabilities:
            return request
        policies = self._current()
        if not (_on_capabilities(policies.operator) or _on_capabilities(policies.user.rules()) or self._checks_loads()):
            return request
        if request.digest not in self._capabilities:
            inspection = self._examine(request)
            if inspection is None:
                return request
            self._capabilities[request.digest] = inspection.capabilities
        return replace(request, capabilities=self._capabilities[request.digest])

    def revoked(self, digest: str | None) -> str | None:
        """Why files with this digest must not be loaded, or ``None``."""
        return self._current().revoked(digest)

    def operator(self, request: LoadRequest) -> Opinion | None:
        """What the operator's policy says."""
        return self._current().operator_decision(request)

    def locked(self, request: LoadRequest) -> bool:
        """Whether the project's lock holds these very files: the same bytes are the same code, wherever they lie."""
        lock = self._lock()
        if lock.foreign and not self._warned_of_lock:
            self._warned_of_lock = True
            _logger.warning("%s belongs to another user: what it pins isn't allowed for that alone.", lock.file)
        return request.digest is not None and lock.by_digest(request.digest) is not None

    def user(self, request: LoadRequest) -> Opinion | None:
        """What the user decided before."""
        return self._current().user.decide(request)

    def may_allow(self, request: LoadRequest) -> bool:
        """Whether it could be allowed once the files have arrived."""
        return self._can_ask() or self._current().may_allow(request)

    def ask(self, request: LoadRequest) -> Answer | None:
        """What a person answers, which is remembered: a yes in the user's trust store, a no in this process."""
        if request.digest is None or self._asker is None or not self._can_ask():
            return None
        if request.digest in self._refused:
            return "no"
        inspection = self._examine(request)
        if inspection is None:
            return None
        answer = self._asker(inspection)
        trusted = self._current().user
        if answer == "digest":
            trusted.allow_digest(request.digest, request.reference)
        elif answer == "owner" and request.owner is not None:
            trusted.allow_owner(request.owner, request.kind)
        else:
            self._refused.add(request.digest)
            return "no"
        return answer

    def _can_ask(self) -> bool:
        return self._asker is not None and self._current().default == "ask"

    def _current(self) -> Policies:
        from twinkle_registry.policies import VARIABLE, Policies

        known, file = self._policies, os.environ.get(VARIABLE)
        if known is None or known[0] < time.monotonic() or known[1] != file:
            known = self._policies = time.monotonic() + READ_AGAIN_S, file, Policies.current(self._home)
        return known[2]


def _on_capabilities(policy: Policy | None) -> bool:
    return policy is not None and any(rule.capability for rule in (*policy.allow, *policy.deny))
