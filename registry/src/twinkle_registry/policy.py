"""The policy: which code from hubs may be loaded, said in a TOML file of allow and deny rules.

``load_policy`` reads and checks one file; ``Policy.decide`` says which rule speaks of a request, and why. A denial beats every
permission, and what a repository says of itself is never enough for one. Knows nothing of who wrote the file, of fetching or of
asking people; installed plugins are no matter of policy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from twinkle_hub.errors import HubError
from twinkle_hub.repository import SCHEME, RepoRef
from twinkle_registry._toml_model import TomlModel, parse_model, read_file

if TYPE_CHECKING:
    from twinkle_registry.trust import LoadRequest

PURE = "pure"
Effect = Literal["allow", "deny"]

_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_CAPABILITY = re.compile(r"[a-z][a-z0-9_-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SEGMENT = re.compile(r"[A-Za-z0-9._*?-]+")


class Decision(NamedTuple):
    """What rules say of a request.

    Attributes:
        allowed: ``True`` or ``False``; ``None`` where no rule speaks of it.
        rule: which rule decides, as ``file:line: allow[0]``; empty where none does.
        why: what the rule is about, and its reason; or why none speaks.
    """

    allowed: bool | None
    rule: str
    why: str


class RuleReport(NamedTuple):
    """How one rule stands to a request: it applies, or ``mismatch`` says what keeps it from that."""

    rule: str
    effect: Effect
    mismatch: str | None
    why: str


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _like(pattern: re.Pattern[str], form: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text!r} is none; write {form}")
        return text

    return check


def check_digest(text: str) -> str:
    """Return ``text``.

    Raises:
        ValueError: it isn't ``sha256:`` and 64 hex digits.
    """
    return _like(_DIGEST, "'sha256:' and 64 hex digits in small letters")(text)


def check_owner(text: str) -> str:
    """Return ``text``, a pattern of owners or repositories; see ``covers``.

    Raises:
        ValueError: it isn't one; shows what one looks like.
    """
    scheme, separator, path = text.partition("://")
    forms = "write 'hf://owner', 'hf://owner/repository' or 'file:///absolute/folder'; '*' and '?' don't match '/'"
    if not separator or not (scheme == "*" or SCHEME.fullmatch(scheme)):
        raise ValueError(f"{text!r} begins with no scheme; {forms}")
    if scheme == "file":
        if not path.startswith("/"):
            raise ValueError(f"{text!r} is no absolute folder; {forms}")
        segments = path[1:].split("/")
    else:
        segments = path.split("/")
        if any(not _SEGMENT.fullmatch(segment) for segment in segments):
            raise ValueError(f"{text!r} is no owner and no repository; {forms}")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(f"{text!r} has an empty part or dots; {forms}")
    return text


Owners = Annotated[list[Annotated[str, AfterValidator(check_owner)]], BeforeValidator(_listed), Field(min_length=1)]
Kinds = Annotated[
    list[Annotated[str, AfterValidator(_like(_KIND, "a kind in small letters, like 'loss'"))]],
    BeforeValidator(_listed),
    Field(min_length=1),
]
Digests = Annotated[list[Annotated[str, AfterValidator(check_digest)]], BeforeValidator(_listed), Field(min_length=1)]
Capabilities = Annotated[
    list[Annotated[str, AfterValidator(_like(_CAPABILITY, "a capability in small letters, like 'network'"))]],
    BeforeValidator(_listed),
    Field(min_length=1),
]


class Rule(TomlModel):
    """What a rule is about: everything that is given has to fit.

    Attributes:
        owner: patterns of owners, repositories or folders; see ``covers``.
        kind: the kinds of components.
        digest: ``sha256:`` and 64 hex digits, of a repository's files.
        capability: what the code needs; the two kinds of rules read it differently.
        reason: for the people who are let in or turned away.
    """

    owner: Owners | None = None
    kind: Kinds | None = None
    digest: Digests | None = None
    capability: Capabilities | None = None
    reason: str = ""

    @property
    def about(self) -> str:
        """The conditions, for people."""
        given = [(name, getattr(self, name)) for name in ("owner", "kind", "digest", "capability")]
        text = ", ".join(f"{name} {' or '.join(value)}" for name, value in given if value)
        return f"{text} ({self.reason})" if self.reason else text


class AllowRule(Rule):
    """``[[allow]]``. Of ``capability``, all that the code needs has to be listed; ``pure``, if listed, has to be declared."""

    @model_validator(mode="after")
    def _rests_on_more_than_the_word_of_a_repository(self) -> AllowRule:
        if self.owner is None and self.digest is None:
            raise ValueError(
                "an allow rule has to name an owner or a digest: what a repository says of itself is no reason to trust it"
            )
        for owner in self.owner or ():
            scheme, _, path = owner.partition("://")
            first = path.partition("/")[0]
            if scheme == "*":
                raise ValueError(f"{owner!r} allows an owner on every hub, and names are registered on each by whoever comes first")
            if scheme != "file" and first != "*" and ("*" in first or "?" in first):
                raise ValueError(f"{owner!r} allows whoever registers a name that fits; name each owner in full")
            if first == "*" and self.capability and self.digest is None:
                raise ValueError(
                    f"{owner!r} with a capability lets in whoever declares the right thing; name each owner in full, or a digest"
                )
        return self


class DenyRule(Rule):
    """``[[deny]]``. Of ``capability``, any that the code needs is enough."""

    @model_validator(mode="after")
    def _is_about_something(self) -> DenyRule:
        if not (self.owner or self.kind or self.digest or self.capability):
            raise ValueError("a deny rule has to name an owner, kind, digest or capability; to deny all, set default = 'deny'")
        if self.capability and PURE in self.capability:
            raise ValueError("'pure' is nothing that code needs; name what it may not need, like 'network'")
        return self


class RevocationSource(TomlModel):
    """``[revocations]``: where the signed list of revoked digests is, and who signs it."""

    source: str = Field(min_length=1)
    public_key: Annotated[str, AfterValidator(_like(re.compile(r"ed25519:[A-Za-z0-9+/]{43}="), "'ed25519:' and the key in base64"))]


class Policy(TomlModel):
    """A whole policy file; the empty policy has no rules and asks."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    default: Literal["ask", "deny"] = "ask"
    allow: list[AllowRule] = Field(default_factory=list)
    deny: list[DenyRule] = Field(default_factory=list)
    revocations: RevocationSource | None = None
    _source: str = PrivateAttr("(no policy)")
    _lines: dict[tuple[str, int], int] = PrivateAttr(default_factory=dict)

    @property
    def source(self) -> str:
        """The file, for people."""
        return self._source

    def decide(self, request: LoadRequest) -> Decision:
        """Which rule speaks of ``request``: the first ``[[deny]]`` that fits, else the first ``[[allow]]``, else none.

        While the digest isn't known, rules about digests and capabilities don't fit yet; see ``may_allow``.
        """
        if request.source == "installed":
            return Decision(None, "", "installed plugins are no matter of policy")
        for effect, place, rule in self._rules():
            if _mismatch(rule, repository_path(request.repository), request, effect, False) is None:
                return Decision(effect == "allow", self.rule_name(effect, place), rule.about)
        return Decision(None, "", f"no rule of {self._source} speaks of it")

    def may_allow(self, request: LoadRequest) -> bool:
        """Whether ``request`` is allowed, or would be with the right digest and capabilities where they aren't known yet."""
        reports = self.explain(request, arriving=True)
        denied = self.decide(request).allowed is False
        return not denied and any(report.effect == "allow" and report.mismatch is None for report in reports)

    def explain(self, request: LoadRequest, *, arriving: bool = False) -> list[RuleReport]:
        """How each rule stands to ``request``, in the order in which they are asked.

        Args:
            arriving: take what isn't known before a download (digest, capabilities) as fitting.
        """
        path = repository_path(request.repository)
        return [
            RuleReport(self.rule_name(effect, place), effect, _mismatch(rule, path, request, effect, arriving), rule.about)
            for effect, place, rule in self._rules()
        ]

    def _rules(self) -> Iterator[tuple[Effect, int, Rule]]:
        """Every rule with its place, in the order in which they are asked."""
        for place, denial in enumerate(self.deny):
            yield "deny", place, denial
        for place, permission in enumerate(self.allow):
            yield "allow", place, permission

    def rule_name(self, effect: str, place: int) -> str:
        """How decisions and warnings call a rule: ``file:line: allow[0]``."""
        line = self._lines.get((effect, place))
        return f"{self._source}{f':{line}' if line else ''}: {effect}[{place}]"


def load_policy(path: Path) -> Policy:
    """Read and check the policy at ``path``.

    Raises:
        PolicyError: it can't be read, or isn't valid; names file, line and key of everything that is wrong.
    """
    return parse_policy(read_file(path), str(path))


def parse_policy(content: bytes, source: str) -> Policy:
    """Check a policy's content; ``source`` is what errors and decisions call it.

    Raises:
        PolicyError: as ``load_policy``.
    """
    policy, lines = parse_model(Policy, content, source, required=("schema",))
    policy._source = source
    for key, line in lines.items():
        match key:
            case (str(effect), int(place)):
                policy._lines[effect, place] = line
    return policy


def repository_path(repository: str | None) -> tuple[str, ...]:
    """``("hf", "acme", "focal")`` for ``hf://acme/focal``; for a folder its parts, normalised. Empty where it can't be read."""
    named = repository or ""
    return _path(named) if named.startswith("file:") else _path_on_hub(named)  # a relative folder isn't always the same one


def _path(repository: str) -> tuple[str, ...]:
    try:
        found = RepoRef.parse(repository)
    except HubError:
        return ()
    return (found.scheme, *found.repo_id.strip("/").split("/"))


_path_on_hub = lru_cache(maxsize=4096)(_path)


def covers(pattern: str, path: tuple[str, ...], *, ignore_case: bool = False) -> bool:
    """Whether the pattern of owners covers the repository at ``path`` (see ``repository_path``).

    Compared part by part: ``hf://acme`` covers all that acme has and nothing of acme-evil's, ``hf://acme/focal*`` those of its
    repositories whose name begins so, ``file:///srv/components`` the folders below. ``*`` and ``?`` never match ``/``.
    """
    wanted = _compiled(pattern, ignore_case)
    return len(wanted) <= len(path) and all(part.fullmatch(text) for part, text in zip(wanted, path, strict=False))


@lru_cache(maxsize=4096)
def _compiled(pattern: str, ignore_case: bool) -> tuple[re.Pattern[str], ...]:
    scheme, _, path = pattern.partition("://")
    parts = (scheme, *path.strip("/").split("/"))
    globs = (re.escape(part).replace(r"\*", ".*").replace(r"\?", ".") for part in parts)
    return tuple(re.compile(glob, re.DOTALL | (re.IGNORECASE if ignore_case else 0)) for glob in globs)


def _mismatch(rule: Rule, path: tuple[str, ...], request: LoadRequest, effect: Effect, arriving: bool) -> str | None:
    """What keeps ``rule`` from applying, or ``None`` where it applies."""
    # Hubs redirect names that differ in case only: a denial has to hold for all spellings, a permission for its own.
    if rule.owner and not any(covers(owner, path, ignore_case=effect == "deny") for owner in rule.owner):
        return f"the owner isn't {' or '.join(rule.owner)}"
    if rule.kind and request.kind not in rule.kind:
        return f"the kind is {request.kind}, not {' or '.join(rule.kind)}"
    if request.digest is None:
        late = rule.digest or rule.capability
        return "digest and capabilities aren't known before the download" if late and not arriving else None
    if rule.digest and f"sha256:{request.digest.removeprefix('sha256:')}" not in rule.digest:
        return "the digest is another"
    return _capability_mismatch(rule, request, effect) if rule.capability else None


def _capability_mismatch(rule: Rule, request: LoadRequest, effect: Effect) -> str | None:
    listed, needs = set(rule.capability or ()), set(request.capabilities) - {PURE}
    if effect == "deny":
        return None if listed & needs else f"it needs none of {', '.join(sorted(listed))}"
    if PURE in listed and not request.pure:
        return "it isn't declared pure"
    beyond = sorted(needs - listed)
    return f"it needs {', '.join(beyond)}, too" if beyond else None
