"""All that speaks on whether code from a hub may be loaded: the operator's policy, its revocation list, and the user's decisions.

``Policies.current`` finds them; ``authorize`` asks them, in its order. The one place that reads ``TWINKLE_POLICY``. Knows nothing
of locks, plugins' checks or asking people.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from twinkle_registry.trust_store import TrustStore

if TYPE_CHECKING:
    from twinkle_registry.policy import Decision, Policy
    from twinkle_registry.revocations import Revocations
    from twinkle_registry.trust import LoadRequest

VARIABLE = "TWINKLE_POLICY"
SYSTEM_FILE = Path("/etc/twinkle/policy.toml")


@dataclass(frozen=True)
class Policies:
    """What speaks on one process's requests.

    Attributes:
        user: the user's decisions, as they are at each question.
        operator: the operator's policy, or ``None`` where there is none.
        revocations: the last good list of revoked digests; ``None`` where none was ever fetched.
    """

    user: TrustStore
    operator: Policy | None = None
    revocations: Revocations | None = None

    @classmethod
    def current(cls, home: Path, file: Path | None = None) -> Policies:
        """The policies of ``home`` and of the operator's ``file`` (default: ``policy_file()``).

        Raises:
            PolicyError: a file isn't valid, or the one that was named isn't there: then nothing is allowed.
        """
        file = file or policy_file()
        operator = None
        if file is not None:
            from twinkle_registry.policy import load_policy

            operator = load_policy(file)
        from twinkle_registry.revocations import Revocations

        key = operator.revocations.public_key if operator and operator.revocations else None
        return cls(TrustStore(home), operator, Revocations.load(home, key))

    @property
    def default(self) -> Literal["ask", "deny"]:
        """What happens where no rule speaks."""
        return self.operator.default if self.operator else "ask"

    def revoked(self, digest: str | None) -> str | None:
        """Why files with this digest (64 hex digits) may not be used, or ``None``."""
        if self.operator and self.operator.revocations and self.revocations is None:
            return f"{self.operator.source} names a list of revoked digests, which was never fetched. Run: twinkle policy refresh"
        return self.revocations.is_revoked(digest) if self.revocations and digest else None

    def operator_decision(self, request: LoadRequest) -> Decision:
        """What the operator's policy says of ``request``."""
        from twinkle_registry.policy import Decision

        return self.operator.decide(request) if self.operator else Decision(None, "", "there is no operator's policy")

    def may_allow(self, request: LoadRequest) -> bool:
        """Whether a rule, the operator's or the user's, allows ``request``, or would with the right digest and capabilities."""
        operator = self.operator is not None and self.operator.may_allow(request)
        return operator or self.user.may_allow(request)


def policy_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """The operator's policy file: what ``TWINKLE_POLICY`` names, else ``/etc/twinkle/policy.toml`` where there is one."""
    named = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if named:
        return Path(named).expanduser().absolute()
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None
