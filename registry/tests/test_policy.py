"""Policies: what a file may say, which rule decides, and that no repository can let itself in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_registry.errors import PolicyError
from twinkle_registry.policy import AllowRule, DenyRule, Policy, check_owner, covers, load_policy, parse_policy, repository_path
from twinkle_registry.trust import LoadRequest

DIGEST, OTHER = "a" * 64, "b" * 64


def ask(repository: str = "hf://acme/focal", kind: str = "loss", **known: object) -> LoadRequest:
    return LoadRequest("hub", repository, kind, repository=repository, **known)


def policy(text: str) -> Policy:
    return parse_policy(f"schema = 1\n{text}".encode(), "policy.toml")


def test_the_empty_policy_says_nothing_and_asks():
    assert policy("").decide(ask()).allowed is None
    assert policy("").default == "ask"


def test_a_rule_that_fits_decides_and_is_named_with_its_line_and_reason():
    found = policy('[[allow]]\nowner = "hf://acme"\nkind = "loss"\nreason = "reviewed 2026-11"').decide(ask())
    assert found == (True, "policy.toml:2: allow[0]", "owner hf://acme, kind loss (reviewed 2026-11)")


def test_a_denial_beats_a_permission_whatever_their_order():
    rules = ['[[allow]]\nowner = "hf://acme"\n', '[[deny]]\nkind = "loss"\n']
    assert policy("".join(rules)).decide(ask()).allowed is False
    assert policy("".join(reversed(rules))).decide(ask()).allowed is False


@pytest.mark.parametrize(
    ("rule", "known", "allowed"),
    [
        ('owner = "hf://acme"', {}, True),
        ('owner = "ms://acme"', {}, None),
        ('owner = ["ms://acme", "hf://acme"]', {}, True),
        ('owner = "hf://acme"\nkind = ["reward", "metric"]', {}, None),
        (f'digest = "sha256:{DIGEST}"', {"digest": DIGEST}, True),
        (f'digest = "sha256:{DIGEST}"', {"digest": OTHER}, None),
        (f'digest = "sha256:{DIGEST}"', {}, None),
        (f'owner = "hf://other"\ndigest = "sha256:{DIGEST}"', {"digest": DIGEST}, None),
    ],
)
def test_everything_that_a_rule_names_has_to_fit(rule: str, known: dict[str, object], allowed: bool | None):
    assert policy(f"[[allow]]\n{rule}").decide(ask(**known)).allowed is allowed


@pytest.mark.parametrize(
    ("listed", "pure", "needs", "allowed"),
    [
        (["pure"], True, (), True),
        (["pure"], False, (), None),
        (["pure"], True, ("network",), None),
        (["network", "files"], False, ("network",), True),
        (["network"], False, ("network", "subprocess"), None),
        (["pure", "files"], True, ("files",), True),
        (["network"], False, (), True),
    ],
)
def test_an_allow_rule_lists_all_that_the_code_may_need(
    listed: list[str], pure: bool, needs: tuple[str, ...], allowed: bool | None
):
    rules = policy(f'[[allow]]\nowner = "hf://acme"\ncapability = {listed}')
    assert rules.decide(ask(digest=DIGEST, pure=pure, capabilities=needs)).allowed is allowed


def test_a_deny_rule_needs_one_of_the_capabilities_that_it_lists():
    rules = policy('[[deny]]\ncapability = ["network", "subprocess"]')
    assert rules.decide(ask(digest=DIGEST, capabilities=("files", "network"))).allowed is False
    assert rules.decide(ask(digest=DIGEST, capabilities=("files",))).allowed is None


def test_before_a_download_it_is_known_whether_anything_can_allow_it():
    rules = policy(f'[[allow]]\nowner = "hf://acme"\ncapability = "pure"\n[[allow]]\ndigest = "sha256:{DIGEST}"\nkind = "metric"')
    assert rules.may_allow(ask())
    assert rules.may_allow(ask("hf://other/x", "metric"))
    assert not rules.may_allow(ask("hf://other/x", "loss"))
    assert not policy('[[allow]]\nowner = "hf://acme"\n[[deny]]\nkind = "loss"').may_allow(ask())


def test_installed_plugins_are_no_matter_of_policy():
    installed = LoadRequest("installed", "FocalLoss", "loss", "parts:FocalLoss", distribution="acme 1.0", package="acme")
    assert policy('[[deny]]\nkind = "loss"').decide(installed).allowed is None


@pytest.mark.parametrize(
    ("pattern", "repository", "fits"),
    [
        ("hf://acme", "hf://acme/focal", True),
        ("hf://acme/*", "hf://acme/focal", True),
        ("hf://acme/foc*", "hf://acme/focal", True),
        ("hf://acme/focal", "hf://acme/focal", True),
        ("hf://acme/focal", "hf://acme/focal-evil", False),
        ("hf://acme", "hf://acme-evil/focal", False),
        ("hf://acme/*", "hf://acme-evil/focal", False),
        ("hf://acme*", "hf://acme-evil/focal", True),  # written so, which only a deny rule may
        ("hf://*/focal", "hf://acme/focal", True),
        ("hf://*", "ms://acme/focal", False),
        ("*://acme", "ms://acme/focal", True),
        ("hf://acme", "hf://evil/acme", False),
        ("file:///srv/good", "file:///srv/good/focal", True),
        ("file:///srv/good", "file:///srv/good-evil/focal", False),
        ("file:///srv/good", "file:///srv/good/../evil", False),
        ("file:///srv/good/*", "file:///srv/good", False),
        ("hf://acme", "nonsense", False),
    ],
)
def test_owners_are_compared_part_by_part(pattern: str, repository: str, fits: bool):
    assert check_owner(pattern) == pattern
    assert covers(pattern, repository_path(repository)) is fits


def test_a_denial_holds_for_every_spelling_of_a_name_and_a_permission_for_its_own():
    assert policy('[[deny]]\nowner = "hf://evil"').decide(ask("hf://Evil/x")).allowed is False
    assert policy('[[allow]]\nowner = "hf://acme"').decide(ask("hf://Acme/x")).allowed is None


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ('kind = "loss"', "has to name an owner or a digest"),
        ('capability = "pure"', "what a repository says of itself is no reason to trust it"),
        ('owner = "hf://acme*"', "whoever registers a name that fits"),
        ('owner = "*://acme"', "on every hub"),
        ('owner = "hf://*"\ncapability = "pure"', "lets in whoever declares the right thing"),
    ],
)
def test_no_rule_can_be_written_by_which_a_repository_lets_itself_in(rule: str, why: str):
    with pytest.raises(PolicyError, match=f"policy.toml:2: allow\\[0\\]: .*{why}"):
        policy(f"[[allow]]\n{rule}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 2", r"policy.toml:1: schema: input should be 1, and this is 2"),
        ("default = 'ask'", "policy.toml:1: schema: is missing"),
        ("schema = 1\n\n[[allow]]\nowners = 'hf://acme'", r"policy.toml:4: allow\[0\].owners: unknown key. Did you mean 'owner'\?"),
        ("schema = 1\ndefault = 'allow'", r"policy.toml:2: default: .*'ask' or 'deny', and this is 'allow'"),
        (
            "schema = 1\n[[allow]]\nowner = 'acme'",
            r"policy.toml:3: allow\[0\].owner\[0\]: 'acme' begins with no scheme; write 'hf://owner'",
        ),
        ("schema = 1\n[[deny]]\nowner = 'hf://a/../b'", r"policy.toml:3: .*dots"),
        ("schema = 1\n[[deny]]\nowner = 'file://./x'", r"policy.toml:3: .*absolute folder"),
        (
            "schema = 1\n[[deny]]\ndigest = 'abc'",
            r"policy.toml:3: deny\[0\].digest\[0\]: 'abc' is none; write 'sha256:' and 64 hex",
        ),
        ("schema = 1\n[[deny]]\nkind = 7", r"policy.toml:3: deny\[0\].kind: has to be a list, or one string.*this is 7"),
        ("schema = 1\n[[deny]]\nreason = 'all'", r"policy.toml:2: deny\[0\]: .*to deny all, set default = 'deny'"),
        ("schema = 1\n[[deny]]\ncapability = 'pure'", r"policy.toml:2: deny\[0\]: 'pure' is nothing that code needs"),
        ("schema = 1\n[revocations]\nsource = 'x'\npublic_key = 'k'", r"policy.toml:4: revocations.public_key: .*'ed25519:'"),
        ("schema = 1\n[revocations]\nsource = 'x'", "policy.toml:2: revocations.public_key: is missing"),
        ("schema = 1\n[allow]\nowner = 'hf://a'", "policy.toml:2: allow: has to be a list"),
        ("schema = [", "policy.toml:1: isn't valid TOML"),
        ("schema = 1\n\nx", "policy.toml:3: isn't valid TOML"),
    ],
)
def test_errors_name_file_line_and_key(text: str, message: str):
    with pytest.raises(PolicyError, match=message):
        parse_policy(text.encode(), "policy.toml")


def test_every_error_is_named_at_once():
    with pytest.raises(PolicyError) as caught:
        policy("default = 'allow'\n[[deny]]\nkind = 'LOSS'")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["default", "deny[0].kind[0]"]


def test_a_policy_that_can_not_be_read_is_an_error(tmp_path: Path):
    with pytest.raises(PolicyError, match=r"nowhere\.toml: can't be read: No such file"):
        load_policy(tmp_path / "nowhere.toml")


def test_each_rule_says_what_keeps_it_from_fitting():
    rules = policy('[[deny]]\nkind = "metric"\n[[allow]]\nowner = "hf://acme"\ncapability = "pure"')
    reports = rules.explain(ask(digest=DIGEST, pure=True, capabilities=("network",)))
    assert [report.mismatch for report in reports] == ["the kind is loss, not metric", "it needs network, too"]


OWNERS = st.sampled_from(["hf://acme", "hf://acme/focal", "hf://acme/f*", "ms://acme", "hf://other", "hf://*", "file:///srv"])
KINDS = st.sampled_from(["loss", "metric"])
DIGESTS = st.sampled_from([DIGEST, OTHER])
NEEDS = st.sampled_from(["network", "files"])


@st.composite
def rule_data(draw: st.DrawFn, *, allow: bool) -> dict[str, list[str]]:
    data: dict[str, list[str]] = {}
    for key, values in (("owner", OWNERS), ("kind", KINDS), ("digest", DIGESTS.map("sha256:{}".format)), ("capability", NEEDS)):
        if draw(st.booleans()):
            data[key] = draw(st.lists(values, min_size=1, max_size=2))
    if allow and "owner" not in data and "digest" not in data:
        data["owner"] = ["hf://acme"]
    if allow and "capability" in data and "hf://*" in data.get("owner", ()):
        del data["capability"]
    return data or {"kind": ["loss"]}


ALLOW = rule_data(allow=True).map(AllowRule.model_validate)
DENY = rule_data(allow=False).map(DenyRule.model_validate)
REQUESTS = st.builds(
    ask,
    st.sampled_from(["hf://acme/focal", "hf://acme/other", "ms://acme/focal", "hf://other/x", "file:///srv/x", "hf://acme-evil/x"]),
    KINDS,
    digest=st.none() | DIGESTS,
    pure=st.booleans(),
    capabilities=st.lists(NEEDS, unique=True).map(tuple),
)


def made(allow: list[AllowRule], deny: list[DenyRule]) -> Policy:
    return Policy(schema=1, allow=allow, deny=deny)


@given(st.lists(ALLOW, max_size=4), st.lists(DENY, max_size=4), REQUESTS)
def test_law_a_denial_that_fits_always_wins(allow: list[AllowRule], deny: list[DenyRule], request_: LoadRequest):
    if made([], deny).decide(request_).allowed is False:
        assert made(allow, deny).decide(request_).allowed is False
        assert not made(allow, deny).may_allow(request_)


@given(st.lists(ALLOW, max_size=4), ALLOW, st.lists(DENY, max_size=4), REQUESTS)
def test_law_one_more_permission_never_takes_one_away(
    allow: list[AllowRule], more: AllowRule, deny: list[DenyRule], request_: LoadRequest
):
    before = made(allow, deny).decide(request_).allowed
    after = made([*allow, more], deny).decide(request_).allowed
    assert after == before or (before, after) == (None, True)


@given(st.lists(ALLOW, max_size=4), st.lists(DENY, max_size=4), REQUESTS, DIGESTS)
def test_law_what_is_allowed_after_the_download_was_possible_before(
    allow: list[AllowRule], deny: list[DenyRule], request_: LoadRequest, digest: str
):
    from dataclasses import replace

    rules = made(allow, deny)
    if rules.decide(replace(request_, digest=digest)).allowed:
        assert rules.may_allow(replace(request_, digest=None, pure=False, capabilities=()))


NAMES = st.text("ab-_.", min_size=1, max_size=6).filter(lambda name: name.strip(".-") == name and ".." not in name)


@given(NAMES, NAMES, NAMES)
def test_law_a_permission_for_one_owner_never_reaches_another(owner: str, other: str, name: str):
    rules = made([AllowRule(owner=[f"hf://{owner}"])], [])
    assert (rules.decide(ask(f"hf://{other}/{name}")).allowed is True) == (owner == other)
