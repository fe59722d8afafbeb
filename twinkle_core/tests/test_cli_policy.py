"""``twinkle policy`` and ``twinkle hub trust|revoke``: what they say is what loading does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import twinkle.component
from twinkle.cli.app import run
from twinkle.component import load_component
from twinkle.errors import PolicyError, TrustError

MANIFEST = """
schema = 1
[plugin]
name = "focal"
version = "1.0.0"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "parts:FocalLoss"
pure = true
"""

LOSS = """
from twinkle.loss import Loss
class FocalLoss(Loss):
    def __call__(self, inputs, outputs, **kwargs): raise NotImplementedError
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty home and project, and no policy but the test's."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "home"))
    for name in ("TWINKLE_POLICY", "TWINKLE_TRUST_REMOTE_CODE", "TWINKLE_LOCKED"):
        monkeypatch.delenv(name, raising=False)
    twinkle.component.default_registry.cache_clear()
    yield
    twinkle.component.default_registry.cache_clear()


@pytest.fixture
def focal(tmp_path: Path) -> str:
    """A component in a folder."""
    folder = tmp_path / "acme" / "focal"
    folder.mkdir(parents=True)
    (folder / "twinkle.toml").write_text(MANIFEST)
    (folder / "parts.py").write_text(f"{LOSS}\n# {tmp_path}\n")  # its own digest in each test: modules stay imported
    (folder / "__init__.py").write_text("")
    return f"file://{folder}"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write the operator's policy."""

    def write(text: str) -> Path:
        file = tmp_path / "policy.toml"
        file.write_text(f"schema = 1\n{text}")
        monkeypatch.setenv("TWINKLE_POLICY", str(file))
        return file

    return write


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            run(list(arguments))
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, " ".join(shown.err.split())

    return call


@pytest.mark.parametrize(
    "words", ["policy", "policy check", "policy explain", "policy refresh", "policy sign", "hub trust", "hub revoke"]
)
def test_every_command_has_help(command, words: str):
    status, out, _ = command(*words.split(), "--help")
    assert status == 0
    assert "Usage" in out


def test_check_counts_the_rules_of_a_valid_policy(command, policy):
    file = policy('default = "deny"\n[[allow]]\nowner = "hf://acme"\n[[deny]]\nkind = "loss"')
    status, out, _ = command("policy", "check", str(file))
    assert status == 0
    assert "1 allow, 1 deny; where no rule speaks: deny" in out


def test_check_names_file_line_and_key_and_exits_with_1(command, policy):
    file = policy('[[allow]]\nowners = "hf://acme"')
    status, _, err = command("policy", "check", str(file))
    assert status == 1
    assert f"{file}:3: allow[0].owners: unknown key. Did you mean 'owner'?" in err


def test_check_as_json_lists_the_errors(command, policy):
    status, out, _ = command("policy", "check", str(policy("default = 1\nx = 1")), "--json")
    shown = json.loads(out)
    assert (status, shown["valid"], len(shown["errors"])) == (1, False, 2)


def test_check_warns_of_what_is_hardly_meant(command, policy):
    digest = f"sha256:{'a' * 64}"
    file = policy(f'[[deny]]\nkind = "los"\n[[deny]]\ndigest = "{digest}"\n[[allow]]\ndigest = "{digest}"')
    status, out, _ = command("policy", "check", str(file), "--json")
    warnings = json.loads(out)["warnings"]
    assert status == 0
    assert "policy.toml:2: deny[0].kind: 'los' is no kind that Twinkle knows. Did you mean 'loss'?" in warnings[0]
    assert "is denied, too, and a denial wins" in warnings[1]


def explained(command, *arguments: str) -> dict:
    return json.loads(command("policy", "explain", *arguments, "--json")[1])


def test_explain_names_the_rule_that_decides_and_why(command, policy):
    policy('[[allow]]\nowner = "hf://acme"\nreason = "our own"')
    status, out, _ = command("policy", "explain", "hf://acme/focal@v1", "--kind", "loss")
    assert status == 0
    assert "hf://acme/focal@v1: allowed by operator" in out
    assert "policy.toml:2: allow[0]" in out
    assert "our own" in out


def test_explain_says_what_keeps_a_rule_from_fitting(command, policy):
    policy('[[allow]]\nowner = "hf://acme"\nkind = "reward"')
    shown = explained(command, "hf://acme/focal", "--kind", "loss")
    assert (shown["allowed"], shown["may_be_allowed"]) == (None, False)
    assert shown["rules"][0]["mismatch"] == "the kind is loss, not reward"


def test_explain_downloads_nothing_and_says_that_it_depends(command, policy, focal: str, tmp_path: Path):
    policy(f'default = "deny"\n[[allow]]\nowner = "file://{tmp_path}/acme"\ncapability = "pure"')
    shown = explained(command, focal, "--kind", "loss")
    assert (shown["allowed"], shown["may_be_allowed"]) == (None, True)
    assert "that depends on what is in it" in command("policy", "explain", focal, "--kind", "loss")[1]
    assert not (tmp_path / "home" / "components").exists()


@pytest.mark.parametrize(
    "rule", ["", '[[allow]]\nowner = "file://{acme}"\ncapability = "pure"', '[[deny]]\nowner = "file://{acme}"']
)
@pytest.mark.parametrize("revoked", [False, True])
@pytest.mark.parametrize("trusted", [False, True])
def test_explain_says_what_loading_does(command, policy, focal: str, tmp_path: Path, rule: str, revoked: bool, trusted: bool):
    policy(rule.format(acme=tmp_path / "acme"))
    if trusted:
        command("hub", "trust", focal)
    if revoked:
        command("hub", "revoke", focal)
    said = explained(command, focal, "--kind", "loss", "--fetch")["allowed"]
    try:
        done = load_component("loss", focal).__name__ == "FocalLoss"
    except TrustError:
        done = False
    assert bool(said) == done
    assert done == (not revoked and "deny" not in rule and (trusted or "allow" in rule))


def test_explain_takes_another_policy_than_the_one_in_force(command, policy, tmp_path: Path):
    policy('[[deny]]\nkind = "loss"')
    draft = tmp_path / "draft.toml"
    draft.write_text('schema = 1\n[[allow]]\nowner = "hf://acme"\n')
    assert explained(command, "hf://acme/focal", "--kind", "loss")["allowed"] is False
    assert explained(command, "hf://acme/focal", "--kind", "loss", "--policy", str(draft))["allowed"] is True


def test_a_policy_that_is_named_and_not_there_is_an_error_not_an_empty_policy(command, monkeypatch: pytest.MonkeyPatch, focal: str):
    monkeypatch.setenv("TWINKLE_POLICY", "/nowhere/policy.toml")
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    status, _, err = command("policy", "explain", focal)
    assert status == 1
    assert "/nowhere/policy.toml: can't be read" in err
    with pytest.raises(PolicyError, match="can't be read"):
        load_component("loss", focal)


def test_trust_allows_the_files_as_they_are_and_not_as_they_become(command, focal: str):
    status, out, _ = command("hub", "trust", focal, "--json")
    assert status == 0
    assert json.loads(out)["digest"].startswith("sha256:")
    assert load_component("loss", focal).__name__ == "FocalLoss"
    Path(focal.removeprefix("file://"), "parts.py").write_text("raise RuntimeError('ran')")
    twinkle.component.default_registry.cache_clear()
    with pytest.raises(TrustError):
        load_component("loss", focal)


def test_trust_of_an_owner_needs_a_kind_and_allows_that_kind(command, focal: str, tmp_path: Path):
    owner = f"file://{tmp_path}/acme"
    assert "Say which of its components" in command("hub", "trust", "--owner", owner)[2]
    assert command("hub", "trust", "--owner", owner, "--kind", "loss")[0] == 0
    assert load_component("loss", focal).__name__ == "FocalLoss"


@pytest.mark.parametrize("arguments", [[], ["hf://acme/x", "--owner", "hf://acme"], ["hf://acme/x", "--kind", "loss"]])
def test_trust_says_what_it_takes(command, arguments: list[str]):
    status, _, err = command("hub", "trust", *arguments)
    assert status == 1
    assert "--owner" in err


def test_what_was_revoked_is_refused_though_the_operator_and_the_environment_allow_it(
    command, policy, focal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    policy(f'[[allow]]\nowner = "file://{tmp_path}/acme"')
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    assert "Refused from now on" in command("hub", "revoke", focal)[1]
    with pytest.raises(TrustError, match=r"trust\.toml:\d+: deny\[0\]"):
        load_component("loss", focal)


def test_trust_of_one_repository_says_so_where_its_owner_stays_revoked(command, focal: str, tmp_path: Path):
    command("hub", "revoke", f"file://{tmp_path}/acme")
    status, _, err = command("hub", "trust", focal)
    assert status == 1
    assert "still refused" in err
    assert "twinkle hub trust --owner" in err


def test_an_issuer_signs_an_operator_refreshes_and_nobody_loads_what_is_revoked(command, policy, focal: str, tmp_path: Path):
    issued = tmp_path / "issued"
    issued.mkdir()
    key = tmp_path / "key.pem"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    digest = json.loads(command("hub", "trust", focal, "--json")[1])["digest"]
    (issued / "revocations.toml").write_text(
        f'schema = 1\nserial = 1\n[[revoked]]\ndigest = "{digest}"\nreason = "it sends tokens away"\n'
    )
    signed = json.loads(command("policy", "sign", str(issued / "revocations.toml"), "--key", str(key), "--json")[1])
    policy(f'[revocations]\nsource = "issued"\npublic_key = "{signed["public_key"]}"')
    with pytest.raises(TrustError, match="Run: twinkle policy refresh"):
        load_component("loss", focal)
    status, out, _ = command("policy", "refresh")
    assert status == 0
    assert "serial 1, 1 revoked digests" in out
    twinkle.component.default_registry.cache_clear()
    with pytest.raises(TrustError, match="it sends tokens away"):
        load_component("loss", focal)
    (issued / "revocations.toml").write_text("schema = 1\nserial = 2\n")
    status, _, err = command("policy", "refresh")
    assert status == 1
    assert "the last good copy stays in use" in err.lower()
    with pytest.raises(TrustError, match="it sends tokens away"):
        load_component("loss", focal)


def test_refresh_without_a_policy_or_a_list_says_what_is_missing(command, policy):
    assert "There is no policy: set TWINKLE_POLICY" in command("policy", "refresh")[2]
    policy("")
    assert "has no [revocations]" in command("policy", "refresh")[2]


def test_explain_of_a_name_that_nothing_has_says_so(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run(["policy", "explain", "NoSuchThing"])
    assert "No plugin has a component named 'NoSuchThing'" in capsys.readouterr().err
