"""All that speaks on whether code from a hub may be loaded: the operator's policy, its revocation list, and the user's decisions.

``Policies.current`` finds them; ``authorize`` asks them, in its order. The one place that reads ``TWINKLE_POLICY``. Knows nothing
of locks, plugins' checks or asking people.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from twinkle_registry.trust_store import TrustStore

if TYPE_CHECKING:
    from twinkle_registry.policy import Decision, Policy
    from twinkle_registry.revocations import Revocations
    from twinkle_registry.trust import LoadRequest

VARIABLE = "TWINKLE_POLICY"
SYSTEM_FILE = Path("/etc/twinkle/policy.toml")


class Step(NamedTuple):
    """What one of those that are asked says; ``allowed`` is ``None`` where it says nothing.

    Attributes:
        asked: who: ``revocations``, ``operator``, ``user``, ``lock``, ``environment`` or ``default``.
        allowed: what it says.
        rule: the rule, where there is one.
        why: the reason.
    """

    asked: str
    allowed: bool | None
    rule: str
    why: str


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
        from twinkle_registry.revocations import Revocations

        file = file or policy_file()
        operator = None
        if file is not None:
            from twinkle_registry.policy import load_policy

            operator = load_policy(file)
        key = operator.revocations.public_key if operator and operator.revocations else None
        return cls(TrustStore(home), operator, Revocations.load(home, key))

    @property
    def default(self) -> Literal["ask", "deny"]:
        """What happens where no rule speaks."""
        return self.operator.default if self.operator else "ask"

    def revoked(self, digest: str | None) -> str | None:
        """Why files with this digest (64 hex digits) may not be used, or ``None``."""
        if self.operator and self.operator.revocations and self.revocations is None:
            missing = "names a list of revoked digests, and none that its key signed was fetched"
            return f"{self.operator.source} {missing}. Run: twinkle policy refresh"
        return self.revocations.is_revoked(digest) if self.revocations and digest else None

    def operator_decision(self, request: LoadRequest) -> Decision:
        """What the operator's policy says of ``request``."""
        from twinkle_registry.policy import Decision

        return self.operator.decide(request) if self.operator else Decision(None, "", "there is no operator's policy")

    def may_allow(self, request: LoadRequest) -> bool:
        """Whether a rule, the operator's or the user's, allows ``request``, or would with the right digest and capabilities."""
        operator = self.operator is not None and self.operator.may_allow(request)
        return operator or self.user.may_allow(request)

    def explain(self, request: LoadRequest, *, locked: bool, environment: bool) -> list[Step]:
        """What each of those that are asked says of ``request``, in the order of ``authorize``: the first that speaks decides.

        Plugins' checks aren't here: they are code, and only loading asks them.

        Args:
            locked: the project's lock pins these files.
            environment: this process was started with ``TWINKLE_TRUST_REMOTE_CODE``.
        """
        revoked = self.revoked(request.digest)
        operator, user = self.operator_decision(request), self.user.decide(request)
        shown = "nobody has revoked it" if request.digest else "the digest isn't known before the download"
        return [
            Step("revocations", False if revoked else None, "", revoked or shown),
            *([Step("operator", *operator)] if operator.allowed is False else []),
            *([Step("user", *user)] if user.allowed is False else []),
            *([] if operator.allowed is False else [Step("operator", *operator)]),
            Step("lock", True if locked else None, "", "twinkle.lock pins it" if locked else "twinkle.lock doesn't pin it"),
            *([] if user.allowed is False else [Step("user", *user)]),
            Step(
                "environment",
                True if environment else None,
                "",
                f"TWINKLE_TRUST_REMOTE_CODE is {'set' if environment else 'unset'}",
            ),
            Step("default", None if self.default == "ask" else False, "", _DEFAULTS[self.default]),
        ]


_DEFAULTS = {"ask": "a terminal is asked; a script gets an error", "deny": "the operator's policy denies what no rule allows"}


def policy_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """The operator's policy file: what ``TWINKLE_POLICY`` names, else ``/etc/twinkle/policy.toml`` where there is one."""
    named = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if named:
        return Path(named).expanduser().absolute()
    # A link to a file that isn't there (a share that isn't mounted) is a policy that can't be read, not none.
    return SYSTEM_FILE if os.path.lexists(SYSTEM_FILE) else None
