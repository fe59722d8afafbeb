"""What speaks on a request, and in which order: the operator, the revocations, the user, the lock, the environment."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from twinkle_registry.errors import PolicyError, TrustError
from twinkle_registry.policies import Policies, policy_file
from twinkle_registry.policy import Policy, parse_policy
from twinkle_registry.revocations import Revocations
from twinkle_registry.trust import LoadRequest, authorize
from twinkle_registry.trust_store import TrustStore

DIGEST = "a" * 64
ACME = LoadRequest("hub", "hf://acme/focal", "loss", repository="hf://acme/focal", digest=DIGEST)
SAYS = {None: "", True: '[[allow]]\nowner = "hf://acme"\n', False: '[[deny]]\nowner = "hf://acme"\n'}


def operator(says: bool | None, default: str = "ask") -> Policy:
    return parse_policy(f'schema = 1\ndefault = "{default}"\n{SAYS[says]}'.encode(), "policy.toml")


def user(home: Path, says: bool | None) -> TrustStore:
    store = TrustStore(home)
    if says is True:
        store.allow_digest(DIGEST, "hf://acme/focal")
    elif says is False:
        store.revoke(DIGEST)
    return store


class Rules:
    """What the door asks, with these policies and nobody at the terminal."""

    def __init__(self, policies: Policies, locked: bool) -> None:
        self._policies, self._locked = policies, locked

    def examined(self, request: LoadRequest) -> LoadRequest:
        return request

    def revoked(self, digest: str | None) -> str | None:
        return self._policies.revoked(digest)

    def operator(self, request: LoadRequest):
        return self._policies.operator_decision(request)

    def locked(self, request: LoadRequest) -> bool:
        return self._locked

    def user(self, request: LoadRequest):
        return self._policies.user.decide(request)

    def may_allow(self, request: LoadRequest) -> bool:
        return self._policies.may_allow(request)

    def ask(self, request: LoadRequest) -> None:
        return None


CASES = list(itertools.product((None, True, False), (None, True, False), (False, True), (False, True), (False, True)))


@pytest.mark.parametrize(("operator_says", "user_says", "revoked", "locked", "environment"), CASES)
def test_the_explanation_agrees_with_the_door(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    operator_says: bool | None,
    user_says: bool | None,
    revoked: bool,
    locked: bool,
    environment: bool,
):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", str(int(environment)))
    revocations = Revocations(1, {DIGEST: "bad"}, "key") if revoked else None
    policies = Policies(user(home, user_says), operator(operator_says), revocations)
    try:
        allowed = bool(authorize(ACME, rules=Rules(policies, locked)))
    except TrustError:
        allowed = False
    steps = policies.explain(ACME, locked=locked, environment=environment)
    assert next((step.allowed for step in steps if step.allowed is not None), False) is allowed
    denied = revoked or operator_says is False or user_says is False
    assert allowed == (not denied and (operator_says is True or locked or user_says is True or environment))


def test_where_no_rule_speaks_the_operators_default_decides(home: Path):
    def last(policies: Policies) -> bool | None:
        return policies.explain(ACME, locked=False, environment=False)[-1].allowed

    assert last(Policies(TrustStore(home))) is None
    assert last(Policies(TrustStore(home), operator(None))) is None
    assert last(Policies(TrustStore(home), operator(None, "deny"))) is False


def test_a_list_that_is_named_and_was_never_fetched_refuses_everything(home: Path):
    key = f"ed25519:{'A' * 43}="
    policy = parse_policy(f'schema = 1\n[revocations]\nsource = "x"\npublic_key = "{key}"'.encode(), "policy.toml")
    assert "Run: twinkle policy refresh" in Policies(TrustStore(home), policy).revoked(DIGEST)
    assert Policies(TrustStore(home), policy, Revocations(1, {}, key)).revoked(DIGEST) is None


def test_the_operators_file_is_the_one_that_the_environment_names(home: Path, tmp_path: Path):
    file = tmp_path / "policy.toml"
    file.write_text('schema = 1\ndefault = "deny"\n')
    assert policy_file({"TWINKLE_POLICY": str(file)}) == file
    assert Policies.current(home, file).default == "deny"


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_names_no_file(value: str):
    assert policy_file({"TWINKLE_POLICY": value}) == policy_file({})


def test_a_file_that_is_named_and_not_there_is_an_error(home: Path, tmp_path: Path):
    with pytest.raises(PolicyError, match=r"nowhere\.toml: can't be read"):
        Policies.current(home, tmp_path / "nowhere.toml")
