"""Who decides whether code from a hub may be loaded, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from twinkle_hub.digest import digest_of_bytes
from twinkle_hub.local import FileHub
from twinkle_registry.errors import LockError, TrustError
from twinkle_registry.inspection import Inspection
from twinkle_registry.lock import LOCK, LockedComponent, LockFile
from twinkle_registry.project import Project
from twinkle_registry.registry import Registry
from twinkle_registry.store import ComponentStore
from twinkle_registry.trust import LoadRequest
from twinkle_registry.trust_store import TrustStore

MANIFEST = """\
schema = 1
[plugin]
name = "focal"
version = "1.2"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
pure = true
"""
REFERENCE = "watched://acme/focal"


class WatchedHub(FileHub):
    """A hub that says what it was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, scheme="watched")
        self.calls: list[str] = []

    def resolve(self, repo_id: str, revision: str | None = None, *args, **options) -> str:
        self.calls.append(f"resolve {repo_id}")
        return super().resolve(repo_id, revision, *args, **options)

    def download(self, repo_id: str, **options) -> Path:
        self.calls.append(f"download {repo_id}")
        return super().download(repo_id, **options)


@pytest.fixture(autouse=True)
def nothing_is_trusted(trusted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWINKLE_TRUST_REMOTE_CODE", "TWINKLE_POLICY", "TWINKLE_LOCKED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def focal(write, tmp_path: Path) -> Callable[..., str]:
    """Publish the component, which leaves a mark where it is executed; return the digest of its files."""

    def publish(name: str = "acme/focal", source: str = "", gamma: int = 2) -> str:
        mark = f"open({str(tmp_path / 'executed')!r}, 'a').close()\n"
        folder = write(name, **{"twinkle.toml": MANIFEST, "loss.py": f"{mark}{source}\nclass FocalLoss:\n    gamma = {gamma}\n"})
        digest = ComponentStore(tmp_path / "elsewhere").add(folder)
        return digest

    return publish


@pytest.fixture
def hub(tmp_path: Path) -> WatchedHub:
    return WatchedHub(tmp_path / "repositories")


@pytest.fixture
def executed(tmp_path: Path) -> Callable[[], bool]:
    return (tmp_path / "executed").exists


@pytest.fixture
def open_registry(make_registry, hub: WatchedHub, tmp_path: Path) -> Callable[..., Registry]:
    def make(**options: object) -> Registry:
        registry = make_registry(**{"project": Project(tmp_path / "twinkle.toml"), **options})
        registry.hubs.add(hub)
        return registry

    return make


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def write_policy(text: str) -> None:
        (tmp_path / "policy.toml").write_text(f"schema = 1\n{text}")
        monkeypatch.setenv("TWINKLE_POLICY", str(tmp_path / "policy.toml"))

    return write_policy


class Person:
    """Answers always the same, and remembers what it was shown."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.shown: list[Inspection] = []

    def __call__(self, inspection: Inspection) -> str:
        self.shown.append(inspection)
        return self.answer


def lock(folder: Path, reference: str, commit: str, digest: str, **more: object) -> None:
    entry = LockedComponent(reference, commit, digest, **{"kinds": ("loss",), **more})
    LockFile.read(folder / LOCK).with_component(entry).save()


def test_what_nothing_allows_is_refused_unfetched_with_the_commands_that_allow_it(focal, open_registry, hub, executed):
    focal()
    message = rf"'{REFERENCE}' is code from a hub.*hub info {REFERENCE}.*hub trust {REFERENCE}.*hub add {REFERENCE}"
    with pytest.raises(TrustError, match=message):
        open_registry().load("loss", REFERENCE)
    assert hub.calls == []
    assert not executed()


def test_an_allowed_owner_and_kind(focal, open_registry, policy, executed):
    focal()
    policy('[[allow]]\nowner = "watched://acme"\nkind = "loss"\n')
    assert open_registry().load("loss", REFERENCE).gamma == 2


@pytest.mark.parametrize("rule", ['owner = "watched://acm"', 'owner = "watched://acme"\nkind = "reward"'])
def test_a_rule_for_others_allows_nothing_and_fetches_nothing(focal, open_registry, policy, hub, rule: str):
    focal()
    policy(f"[[allow]]\n{rule}\n")
    with pytest.raises(TrustError, match="nothing allows it"):
        open_registry().load("loss", REFERENCE)
    assert hub.calls == []


def test_an_operators_denial_beats_lock_user_and_environment(
    focal, open_registry, policy, hub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    digest = focal()
    lock(tmp_path, REFERENCE, "main", digest)
    TrustStore(home).allow_digest(digest, REFERENCE)
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    policy('[[deny]]\nowner = "watched://acme"\nreason = "under review"\n')
    with pytest.raises(TrustError, match=r"policy\.toml:2: deny\[0\] denies it: .*under review"):
        open_registry().load("loss", REFERENCE)
    assert hub.calls == []


def test_a_plugins_denial_beats_an_operators_permission(focal, open_registry, policy, importable, hub):
    focal()
    hooks = 'hooks = { module = "hooks", names = ["twinkle_check_load"] }'
    check = "def twinkle_check_load(request):\n    return 'a review is due' if request.source == 'hub' else None\n"
    importable.install("acme-review", extra=hooks, files={"hooks.py": check})
    policy('[[allow]]\nowner = "watched://acme"\n')
    with pytest.raises(TrustError, match=r"acme-review 1\.0 denies it: a review is due"):
        open_registry(hook_specifications="twinkle.hookspecs").load("loss", REFERENCE)
    assert hub.calls == []


def test_a_rule_on_capabilities_decides_once_the_files_are_there(focal, open_registry, policy, executed):
    policy('[[allow]]\nowner = "watched://acme"\ncapability = ["pure", "files"]\n')
    focal("acme/focal")
    focal("acme/sender", source="import socket")
    assert open_registry().load("loss", REFERENCE).gamma == 2
    with pytest.raises(TrustError, match="nothing allows it"):
        open_registry().load("loss", "watched://acme/sender")


def test_a_denied_capability_beats_the_lock(focal, open_registry, policy, tmp_path: Path, hub, executed):
    digest = focal(source="import socket")
    lock(tmp_path, REFERENCE, hub.resolve("acme/focal"), digest)
    policy('[[deny]]\ncapability = "network"\n')
    with pytest.raises(TrustError, match=r"deny\[0\] denies it"):
        open_registry().load("loss", REFERENCE)
    assert not executed()


def test_the_users_digest_allows_these_files_and_no_others(focal, open_registry, home: Path, hub, executed):
    TrustStore(home).allow_digest(focal(), REFERENCE)
    assert open_registry().load("loss", REFERENCE).gamma == 2
    focal(gamma=3)
    with pytest.raises(TrustError, match="nothing allows it"):
        open_registry().load("loss", REFERENCE)


def test_the_users_revocation_beats_the_environment(focal, open_registry, home: Path, monkeypatch: pytest.MonkeyPatch, hub):
    focal()
    TrustStore(home).revoke("watched://acme")
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    with pytest.raises(TrustError, match=r"trust\.toml.*denies it"):
        open_registry().load("loss", REFERENCE)
    assert hub.calls == []


def test_the_environment_comes_before_the_question(focal, open_registry, monkeypatch: pytest.MonkeyPatch):
    focal()
    person = Person("no")
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    assert open_registry(ask=person).load("loss", REFERENCE).gamma == 2
    assert person.shown == []


def test_a_person_is_shown_the_files_before_anything_runs_and_asked_once(focal, open_registry, executed, home: Path):
    digest = focal()
    person = Person("digest")
    registry = open_registry(ask=lambda inspection: (executed() and "no") or person(inspection))
    for _ in range(2):
        assert registry.load("loss", REFERENCE).gamma == 2
    (shown,) = person.shown
    assert (shown.reference, shown.owner, shown.kind, shown.digest) == (REFERENCE, "watched://acme", "loss", digest)
    assert [path for path, _ in shown.files] == ["loss.py", "twinkle.toml"]
    assert shown.findings
    assert open_registry().load("loss", REFERENCE).gamma == 2


def test_a_yes_to_the_files_is_no_yes_to_what_comes_later(focal, open_registry):
    focal()
    open_registry(ask=Person("digest")).load("loss", REFERENCE)
    focal(gamma=3)
    person = Person("no")
    with pytest.raises(TrustError, match="whoever was asked said no"):
        open_registry(ask=person).load("loss", REFERENCE)
    assert len(person.shown) == 1


def test_a_yes_to_an_owner_is_for_that_kind_and_what_comes_later(focal, open_registry):
    focal()
    open_registry(ask=Person("owner")).load("loss", REFERENCE)
    focal("acme/other", gamma=3)
    assert open_registry().load("loss", "watched://acme/other").gamma == 3
    with pytest.raises(TrustError):
        open_registry().load("reward", "watched://acme/other")


def test_a_no_executes_nothing_and_is_not_asked_again(focal, open_registry, executed):
    focal()
    person = Person("no")
    registry = open_registry(ask=person)
    for _ in range(2):
        with pytest.raises(TrustError, match="whoever was asked said no"):
            registry.load("loss", REFERENCE)
    assert len(person.shown) == 1
    assert not executed()


def test_where_the_operators_default_is_deny_nobody_is_asked(focal, open_registry, policy, hub):
    focal()
    policy('default = "deny"\n')
    person = Person("owner")
    with pytest.raises(TrustError, match="nothing allows it"):
        open_registry(ask=person).load("loss", REFERENCE)
    assert person.shown == hub.calls == []


def test_files_in_the_store_are_not_an_owners_because_a_reference_says_so(focal, open_registry, policy, write, home, executed, hub):
    policy('[[allow]]\nowner = "watched://acme"\n')
    focal()
    evil = focal("evil/focal", gamma=666)
    ComponentStore(home).record_source(evil, "watched://evil/focal", "main")
    ComponentStore(home).add(hub.root / "evil" / "focal")
    with pytest.raises(TrustError, match=f"sha256:{evil} was asked for"):
        open_registry().load("loss", f"{REFERENCE}#sha256:{evil}")
    assert not executed()


def test_files_that_came_from_the_owner_are_loaded_from_the_store(focal, open_registry, policy, hub):
    policy('[[allow]]\nowner = "watched://acme"\n')
    digest = focal()
    open_registry().load("loss", REFERENCE)
    hub.calls.clear()
    assert open_registry().load("loss", f"{REFERENCE}#sha256:{digest}").gamma == 2
    assert hub.calls == []


def test_a_commit_that_was_fetched_before_is_not_fetched_again(focal, open_registry, policy, hub):
    policy('[[allow]]\nowner = "watched://acme"\n')
    focal()
    for _ in range(2):
        open_registry().load("loss", REFERENCE)
    assert hub.calls.count("download acme/focal") == 1


def test_a_permission_that_ends_while_the_process_runs(focal, open_registry, policy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("twinkle_registry.load_rules.READ_AGAIN_S", 0.0)
    monkeypatch.setattr("twinkle_registry.hub_loading.ASK_AGAIN_S", 0.0)
    policy('[[allow]]\nowner = "watched://acme"\n')
    focal()
    registry = open_registry()
    registry.load("loss", REFERENCE)
    policy('[[deny]]\nowner = "watched://acme"\n')
    with pytest.raises(TrustError, match="denies it"):
        registry.load("loss", REFERENCE)


def test_code_that_something_else_executes_is_decided_on_by_its_digest(open_registry, write, home: Path):
    folder = write("model", **{"modeling.py": "raise RuntimeError", "config.json": "{}"})
    reference = "hf://acme/model@abc"
    with pytest.raises(TrustError, match=f"{reference}.*twinkle hub trust --owner hf://acme --kind model"):
        open_registry().authorize_folder("model", reference, folder)
    digest = digest_of_bytes({"modeling.py": (folder / "modeling.py").read_bytes()})
    TrustStore(home).allow_digest(digest, reference)
    grant = open_registry().authorize_folder("model", reference, folder)
    assert (grant.request.kind, grant.request.owner) == ("model", "hf://acme")
    (folder / "modeling.py").write_text("changed = True")
    with pytest.raises(TrustError):
        open_registry().authorize_folder("model", reference, folder)


@pytest.mark.parametrize(
    ("repository", "owner"),
    [("hf://acme/focal", "hf://acme"), ("file:///a/b", "file:///a/b"), (None, None), ("sha256:" + "0" * 64, None)],
)
def test_the_owner_of_a_request(repository: str | None, owner: str | None):
    assert LoadRequest("hub", "x", "loss", repository=repository).owner == owner


def test_a_hub_component_never_replaces_an_installed_one_by_its_bare_name(focal, open_registry, importable, policy):
    importable.install("acme-losses")
    policy('[[allow]]\nowner = "watched://acme"\n')
    focal()
    registry = open_registry()
    from_hub = registry.load("loss", REFERENCE)
    installed = registry.load("loss", "FocalLoss")
    assert installed is not from_hub
    assert installed.__module__ == "acme_losses.parts"


def test_only_what_is_locked_may_be_used_where_the_lock_is_the_law(focal, open_registry, hub, monkeypatch: pytest.MonkeyPatch):
    focal()
    monkeypatch.setenv("TWINKLE_LOCKED", "1")
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    with pytest.raises(LockError, match=f"{REFERENCE} isn't in .*twinkle hub add {REFERENCE}"):
        open_registry().load("loss", REFERENCE)
    assert hub.calls == []
