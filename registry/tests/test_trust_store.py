"""The user's trust: what was decided holds until it is taken back, and nothing is lost when many decide at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from twinkle_registry.errors import PolicyError
from twinkle_registry.trust import LoadRequest
from twinkle_registry.trust_store import TrustStore

DIGEST, OTHER = "a" * 64, "b" * 64


def ask(repository: str = "hf://acme/focal", kind: str = "loss", digest: str | None = DIGEST) -> LoadRequest:
    return LoadRequest("hub", repository, kind, repository=repository, digest=digest)


@pytest.fixture
def store(home: Path) -> TrustStore:
    return TrustStore(home)


def test_nothing_is_decided_at_first_and_no_file_is_made(store: TrustStore):
    assert store.decide(ask()).allowed is None
    assert not store.file.exists()


def test_a_digest_is_allowed_wherever_it_comes_from_and_nothing_else_is(store: TrustStore):
    store.allow_digest(DIGEST, "hf://acme/focal@v1")
    assert store.decide(ask("ms://mirror/focal")).allowed is True
    assert store.decide(ask(digest=OTHER)).allowed is None


def test_the_decision_names_the_file_its_line_and_what_was_shown(store: TrustStore):
    store.allow_digest(DIGEST, "hf://acme/focal@v1")
    decision = store.decide(ask())
    assert decision.rule == f"{store.file}:3: allow[0]"
    assert "hf://acme/focal@v1" in decision.why


def test_an_owner_is_allowed_for_one_kind(store: TrustStore):
    store.allow_owner("hf://acme", "loss")
    assert store.decide(ask(digest=None)).allowed is True
    assert store.decide(ask(kind="reward")).allowed is None
    assert store.decide(ask("hf://acme-evil/focal")).allowed is None


def test_decisions_are_on_disk_for_the_next_process(store: TrustStore, home: Path):
    store.allow_owner("hf://acme", "loss")
    assert TrustStore(home).decide(ask()).allowed is True


def test_what_another_process_writes_is_seen_at_the_next_question(store: TrustStore, home: Path):
    assert store.decide(ask()).allowed is None
    TrustStore(home).allow_digest(DIGEST, "hf://acme/focal")
    assert store.decide(ask()).allowed is True


def test_the_same_decision_twice_is_one(store: TrustStore):
    store.allow_digest(DIGEST, "hf://acme/focal")
    once = store.file.read_text()
    store.allow_digest(f"sha256:{DIGEST}", "hf://acme/focal@main")
    assert store.file.read_text() == once


@pytest.mark.parametrize("what", [DIGEST, f"sha256:{DIGEST}", "hf://acme/focal", "hf://acme/focal@v1", "hf://acme"])
def test_what_is_revoked_is_refused_from_then_on(store: TrustStore, what: str):
    store.allow_digest(DIGEST, "hf://acme/focal@v1")
    taken = store.revoke(what)
    assert len(taken) == 1
    assert store.decide(ask()).allowed is False
    assert store.decide(ask("ms://mirror/focal")).allowed is False  # the same files, elsewhere


def test_revoking_an_owner_takes_back_what_was_allowed_of_it_and_leaves_the_others(store: TrustStore):
    store.allow_owner("hf://acme", "loss")
    store.allow_owner("hf://acme", "reward")
    store.allow_owner("hf://acme-labs", "loss")
    assert len(store.revoke("hf://acme")) == 2
    assert store.decide(ask(digest=OTHER)).allowed is False
    assert store.decide(ask("hf://acme-labs/x", digest=OTHER)).allowed is True


def test_revoking_what_was_never_allowed_refuses_it(store: TrustStore):
    assert store.revoke("hf://acme/focal#sha256:" + OTHER) == []
    assert store.decide(ask()).allowed is False
    assert store.decide(ask("hf://acme/other")).allowed is None


def test_revoking_one_repository_leaves_its_owner_s_others(store: TrustStore):
    store.allow_owner("hf://acme", "loss")
    assert store.revoke("hf://acme/focal") == []
    assert store.decide(ask("hf://acme/focal")).allowed is False
    assert store.decide(ask("hf://acme/other")).allowed is True


@pytest.mark.parametrize(
    ("revoked", "lift"),
    [
        (DIGEST, lambda store: store.allow_digest(DIGEST, "hf://acme/focal")),
        ("hf://acme", lambda store: store.allow_owner("hf://acme", "loss")),
        ("hf://acme/focal", lambda store: store.allow_digest(DIGEST, "hf://acme/focal")),
    ],
)
def test_to_trust_again_lifts_a_revocation(store: TrustStore, revoked: str, lift):
    store.revoke(revoked)
    lift(store)
    assert store.decide(ask()).allowed is True


def test_folders_have_owners_too(store: TrustStore):
    store.allow_owner("file:///srv/components", "loss")
    assert store.decide(ask("file:///srv/components/focal")).allowed is True
    assert store.decide(ask("file:///srv/components-evil/focal")).allowed is None


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.allow_digest("abc", "hf://acme/focal"),
        lambda store: store.allow_owner("acme", "loss"),
        lambda store: store.allow_owner("hf://ac*", "loss"),
        lambda store: store.allow_owner("hf://acme", "LOSS"),
        lambda store: store.revoke("acme"),
        lambda store: store.revoke("hf://a/../b"),
    ],
)
def test_what_is_no_decision_leaves_the_file_as_it_was(store: TrustStore, change):
    store.allow_owner("hf://acme", "loss")
    before = store.file.read_bytes()
    with pytest.raises(PolicyError):
        change(store)
    assert store.file.read_bytes() == before


def test_a_file_that_was_edited_wrongly_is_an_error_and_is_not_overwritten(store: TrustStore):
    store.file.parent.mkdir()
    store.file.write_text("schema = 1\n[[allow]]\nkind = 'loss'\n")
    with pytest.raises(PolicyError, match=r"trust.toml:2: allow\[0\]: .*owner or a digest"):
        store.decide(ask())
    with pytest.raises(PolicyError):
        store.allow_owner("hf://acme", "loss")
    assert "kind = 'loss'" in store.file.read_text()


def test_text_of_others_can_not_write_a_rule(store: TrustStore):
    store.allow_digest(DIGEST, 'hf://acme/focal"\n[[allow]]\nowner = "hf://evil')
    assert len(store.rules().allow) == 1
    assert store.decide(ask("hf://evil/x", digest=OTHER)).allowed is None


def test_the_file_is_for_its_user_alone(store: TrustStore):
    store.allow_owner("hf://acme", "loss")
    assert store.file.stat().st_mode & 0o077 == 0


def test_a_home_that_can_not_be_written_is_an_error_that_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError, match=r"can't be written: .* Set TWINKLE_HOME"):
        TrustStore(tmp_path / "file").allow_owner("hf://acme", "loss")


def test_decisions_of_many_processes_are_all_kept(home: Path):
    program = (
        "import sys; from pathlib import Path; from twinkle_registry.trust_store import TrustStore\n"
        "store = TrustStore(Path(sys.argv[1]))\n"
        "for place in range(5): store.allow_owner(f'hf://{sys.argv[2]}{place}', 'loss')"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(home), name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(TrustStore(home).rules().allow) == 15
