"""Pinning, moving, fetching and checking what a lock holds, against folders and loopback hubs."""

import logging
from dataclasses import replace

import pytest

from twinkle_hub.errors import HubConnectionError, HubError
from twinkle_hub.huggingface import HfHub
from twinkle_hub.modelscope import MsHub
from twinkle_hub.repository import RepoRef
from twinkle_hub.testing import HfServer, MsServer
from twinkle_registry.errors import LockError, TrustError
from twinkle_registry.lock import LOCK, LockedRepository, LockFile
from twinkle_registry.locking import Pins, compare, compare_repository, entries, hub_reference, pinned
from twinkle_registry.project import Project
from twinkle_registry.registry import Registry
from twinkle_registry.store import ComponentStore

MANIFEST = b"""\
schema = 1
[plugin]
name = "focal"
version = "1.0"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "parts:FocalLoss"
"""
FILES = {"twinkle.toml": MANIFEST, "parts.py": b"class FocalLoss:\n    gamma = 1\n"}
CHANGED = {**FILES, "parts.py": b"class FocalLoss:\n    gamma = 2\n"}


class Network:
    """Both hubs, and a project that uses them."""

    def __init__(self, hf, ms, folder):
        self.hf, self.ms, self.folder = hf.repositories, ms.repositories, folder
        self.servers = hf, ms
        self.store = ComponentStore(folder / "home")

    def pins(self, lock: LockFile | None = None, *, offline: bool = False) -> Pins:
        if lock is not None:
            lock.save()
        project = Project(self.folder / "twinkle.toml")
        registry = Registry(path=[], project=project, home=self.folder / "home")
        hf, ms = self.servers
        for hub in (
            HfHub(endpoint=hf.endpoint, cache_dir=self.folder / "hf"),
            MsHub(endpoint=ms.endpoint, cache_dir=self.folder / "ms"),
        ):
            registry.hubs._hubs[hub.scheme] = hub  # the standard ones know the real servers
        return Pins(registry, self.store, offline)

    def lock(self, *references: str) -> LockFile:
        lock = LockFile(self.folder / LOCK)
        for reference in references:
            lock = lock.with_component(self.pins().component(reference)[0])
        return lock


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
    monkeypatch.setattr("urllib3.util.retry.Retry.get_backoff_time", lambda self: 0)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TWINKLE_OFFLINE", "TWINKLE_LOCKED", "TWINKLE_POLICY", "TWINKLE_TRUST_REMOTE_CODE"):
        monkeypatch.delenv(name, raising=False)
    with HfServer() as hf, MsServer() as ms:
        yield Network(hf, ms, tmp_path)


def test_a_pin_holds_commit_digest_and_kinds(network):
    commit = network.hf.commit("acme/focal", FILES)
    entry, inspection = network.pins().component("hf://acme/focal/FocalLoss")
    assert (entry.reference, entry.commit, entry.kinds) == ("hf://acme/focal", commit, ("loss",))
    assert entry.digest == inspection.digest
    assert entry.digest in network.store


def test_a_pin_is_what_the_reference_is_now_whatever_the_lock_says(network):
    network.hf.commit("acme/focal", FILES)
    lock = network.lock("hf://acme/focal")
    commit = network.hf.commit("acme/focal", CHANGED)
    assert network.pins(lock).component("hf://acme/focal")[0].commit == commit


def test_a_digest_in_the_reference_is_held_against_what_arrives(network):
    network.hf.commit("acme/focal", FILES)
    with pytest.raises(TrustError, match="isn't what its digest says"):
        network.pins().component(f"hf://acme/focal#sha256:{'0' * 64}")


def test_a_mirror_with_the_same_files_is_pinned_to_its_own_commit(network):
    network.hf.commit("acme/focal", FILES)
    commit = network.ms.commit("other/focal", FILES)
    entry, _ = network.pins().component("hf://acme/focal", ["ms://other/focal"])
    assert entry.mirrors == (f"ms://other/focal@{commit}",)


def test_a_mirror_with_other_files_is_refused(network):
    network.hf.commit("acme/focal", FILES)
    network.ms.commit("other/focal", CHANGED)
    with pytest.raises(LockError, match=r"ms://other/focal is no mirror of hf://acme/focal"):
        network.pins().component("hf://acme/focal", ["ms://other/focal"])


@pytest.mark.parametrize("reference", ["FocalLoss", "twinkle-plugin-losses/FocalLoss"])
def test_what_is_installed_has_no_pin(network, reference):
    with pytest.raises(LockError, match=r"names no repository.*hf://owner/name"):
        hub_reference(network.pins().registry, reference)


def test_an_alias_of_the_project_is_its_reference(network):
    registry = Registry(path=[], project=Project(alias={"mine": "hf://acme/focal@v1"}), home=network.folder / "home")
    assert str(hub_reference(registry, "mine")) == "hf://acme/focal@v1"


def test_a_model_is_pinned_without_fetching_it(network):
    commit = network.hf.commit("acme/m", {"config.json": b"{}", "model.safetensors": b"1"})
    entry = network.pins().repository("acme/m", "model", ignore_patterns=["*.bin"])
    assert entry == LockedRepository("hf://acme/m", commit, None, None, ("*.bin",))
    assert not (network.folder / "hf").exists()


def test_a_models_digest_is_the_same_on_both_hubs_and_counts_only_its_own_files(network):
    network.hf.commit("acme/m", {"config.json": b"{}", "big.bin": b"1", ".gitattributes": b"x"})
    network.ms.commit("acme/m", {"config.json": b"{}", "big.bin": b"2"})
    pick = {"repo_type": "model", "ignore_patterns": ["*.bin"], "with_digest": True}
    one, other = (network.pins().repository(f"{scheme}://acme/m", **pick) for scheme in ("hf", "ms"))
    assert one.digest == other.digest is not None


def test_a_path_has_no_pin(network):
    with pytest.raises(LockError, match=r"is a path on this machine.*file://"):
        network.pins().repository(str(network.folder), "model")


def test_a_single_file_of_rows_is_pinned_by_its_content(network):
    file = network.folder / "rows.jsonl"
    file.write_text("{}\n")
    entry = network.pins().repository(f"file://{file}", "dataset")
    lock = LockFile(network.folder / LOCK).with_repository(entry, "dataset")
    found = RepoRef.parse(f"file://{file}")
    assert pinned(lock, found, "dataset", locked=True) == found
    assert network.pins().stored("dataset", entry).state == "ok"
    file.write_text("changed\n")
    with pytest.raises(LockError, match="was changed after it was locked"):
        pinned(lock, found, "dataset", locked=False)
    assert network.pins().stored("dataset", entry).state == "changed"
    assert network.pins().remote("dataset", entry).state == "moved"


def test_what_has_a_pin_is_at_its_commit(network):
    lock = LockFile(network.folder / LOCK).with_repository(LockedRepository("hf://acme/m", "a" * 40), "model")
    assert pinned(lock, RepoRef.parse("hf://acme/m"), "model", locked=True).revision == "a" * 40
    other = RepoRef.parse("hf://acme/other@v1")
    assert pinned(lock, other, "model", locked=False) == other
    with pytest.raises(LockError, match=r"twinkle hub add --model hf://acme/other@v1"):
        pinned(lock, other, "model", locked=True)


def test_what_stands_still_doesnt_move(network):
    network.hf.commit("acme/focal", FILES)
    lock = network.lock("hf://acme/focal")
    assert not network.pins(lock).move("component", lock.components[0]).moved


def test_what_moved_shows_both_commits_and_digests(network):
    before = network.hf.commit("acme/focal", FILES)
    lock = network.lock("hf://acme/focal")
    after = network.hf.commit("acme/focal", CHANGED)
    move = network.pins(lock).move("component", lock.components[0])
    assert (move.moved, move.before.commit, move.after.commit) == (True, before, after)
    assert move.before.digest != move.after.digest


def test_a_mirror_doesnt_follow_to_other_files(network):
    network.hf.commit("acme/focal", FILES)
    network.ms.commit("acme/focal", FILES)
    entry, _ = network.pins().component("hf://acme/focal", ["ms://acme/focal"])
    network.hf.commit("acme/focal", {**FILES, "README.md": b"the same component"})
    same = network.pins().move("component", entry)
    assert (same.moved, same.after.mirrors, same.after.digest) == (True, entry.mirrors, entry.digest)
    network.hf.commit("acme/focal", CHANGED)
    assert network.pins().move("component", entry).after.mirrors == ()


def test_a_model_that_moved_has_its_digest_taken_anew_where_it_had_one(network):
    network.hf.commit("acme/m", {"config.json": b"{}"})
    with_digest = network.pins().repository("acme/m", "model", with_digest=True)
    without = network.pins().repository("acme/m", "model")
    network.hf.commit("acme/m", {"config.json": b"{1}"})
    assert network.pins().move("model", with_digest).after.digest not in (None, with_digest.digest)
    assert network.pins().move("model", without).after.digest is None


def test_what_isnt_here_is_missing(network):
    network.hf.commit("acme/focal", FILES)
    network.ms.commit("acme/rows", {"train.jsonl": b"{}"}, repo_type="dataset")
    lock = network.lock("hf://acme/focal")
    lock = lock.with_repository(network.pins().repository("ms://acme/rows", "dataset"), "dataset")
    network.store = ComponentStore(network.folder / "home2")
    for table, entry in entries(lock):
        assert network.pins(lock).stored(table, entry).state == "missing"


def test_a_fetched_lock_is_enough_to_go_offline(network):
    network.hf.commit("acme/focal", FILES)
    network.hf.commit("acme/m", {"config.json": b"{}", "skip.bin": b"1"})
    network.ms.commit("acme/rows", {"train.jsonl": b"{}"}, repo_type="dataset")
    lock = network.lock("hf://acme/focal")
    lock = lock.with_repository(network.pins().repository("hf://acme/m", "model", ignore_patterns=["*.bin"]), "model")
    lock = lock.with_repository(network.pins().repository("ms://acme/rows", "dataset"), "dataset")
    states = [network.pins(lock).sync(table, entry).state for table, entry in entries(lock)]
    assert states == ["ok", "fetched", "fetched"]
    assert [network.pins(lock, offline=True).sync(table, entry).state for table, entry in entries(lock)] == ["ok"] * 3


def test_pins_stay_fetchable_when_the_reference_has_moved_on(network):
    network.hf.commit("acme/m", {"config.json": b"old"})
    entry = network.pins().repository("acme/m", "model", with_digest=True)
    network.hf.commit("acme/m", {"config.json": b"new"})
    network.folder = network.folder / "elsewhere"
    network.folder.mkdir()
    assert network.pins().sync("model", entry).state == "fetched"


def test_other_bytes_at_the_pinned_commit_are_drift(network):
    network.hf.commit("acme/m", {"config.json": b"{}"})
    entry = replace(network.pins().repository("acme/m", "model"), digest="0" * 64)
    assert network.pins().sync("model", entry).state == "changed"
    assert network.pins().stored("model", entry).state == "changed"


def test_a_component_that_was_edited_on_disk_is_noticed_and_mended(network):
    network.hf.commit("acme/focal", FILES)
    lock = network.lock("hf://acme/focal")
    entry = lock.components[0]
    file = network.store.read(entry.digest).folder / "parts.py"
    file.chmod(0o644)
    file.write_text("evil = 1\n")
    assert network.pins(lock).stored("component", entry).state == "changed"
    assert network.pins(lock).sync("component", entry).state == "fetched"
    assert network.pins(lock).stored("component", entry).state == "ok"


def test_a_mirror_stands_in_for_a_repository_that_is_gone(network):
    network.hf.commit("acme/focal", FILES)
    network.ms.commit("acme/focal", FILES)
    entry, _ = network.pins().component("hf://acme/focal", ["ms://acme/focal"])
    fresh = Network(*network.servers, network.folder / "elsewhere")
    fresh.folder.mkdir()
    gone = replace(entry, reference="hf://acme/gone")
    checked = fresh.pins().sync("component", gone)
    assert (checked.state, "ms://acme/focal" in checked.message) == ("fetched", True)
    assert entry.digest in fresh.store


def test_a_pin_that_nobody_has_any_more_is_a_failure_that_says_so(network):
    network.hf.commit("acme/focal", FILES)
    entry = replace(network.lock("hf://acme/focal").components[0], digest="0" * 64, reference="hf://acme/gone")
    checked = network.pins().sync("component", entry)
    assert (checked.state, "no such repository" in checked.message) == ("failed", True)


def test_the_hub_is_asked_whether_references_still_stand_for_their_pins(network):
    network.hf.commit("acme/focal", FILES)
    lock = network.lock("hf://acme/focal")
    entry = lock.components[0]
    assert network.pins(lock).remote("component", entry).state == "ok"
    commit = network.hf.commit("acme/focal", CHANGED)
    moved = network.pins(lock).remote("component", entry)
    assert (moved.state, moved.commit) == ("moved", commit)
    assert network.pins(lock).remote("component", replace(entry, reference="hf://acme/gone")).state == "gone"


def test_a_hub_that_cant_be_asked_is_no_drift(network, monkeypatch):
    network.hf.commit("acme/focal", FILES)
    entry = network.lock("hf://acme/focal").components[0]
    pins = network.pins()

    class Broken:
        def resolve(self, *arguments: object, **options: object) -> str:
            raise HubConnectionError("broken off")

    pins.registry.hubs._hubs["hf"] = Broken()
    assert pins.remote("component", entry).state == "failed"


def test_entries_that_arent_there_are_named_with_those_that_are(network):
    network.hf.commit("acme/focal", FILES)
    lock = network.lock("hf://acme/focal")
    assert entries(lock, ["hf://acme/focal"]) == [("component", lock.components[0])]
    with pytest.raises(LockError, match=r"hf://acme/other isn't in .*It holds: hf://acme/focal"):
        entries(lock, ["hf://acme/other"])


def test_the_locked_version_is_compared_with_the_current_one(network):
    before = network.hf.commit("acme/focal", FILES)
    lock = network.lock("hf://acme/focal")
    after = network.hf.commit("acme/focal", CHANGED)
    found = compare(network.pins(lock), "hf://acme/focal", "lock", None)
    assert [row.path for row in found.files] == ["parts.py"]
    assert "-    gamma = 1\n+    gamma = 2\n" in found.files[0].diff
    assert (found.before.source, found.after.source) == (f"hf://acme/focal@{before}", f"hf://acme/focal@{after}")


def test_two_revisions_are_compared(network):
    one, other = network.hf.commit("acme/focal", FILES), network.hf.commit("acme/focal", {**CHANGED, "new.py": b""})
    found = compare(network.pins(), "hf://acme/focal", one, other)
    assert [(row.path, row.change) for row in found.files] == [("new.py", "added"), ("parts.py", "changed")]
    assert compare(network.pins(), "hf://acme/focal", one, one).files == []


def test_what_isnt_locked_has_no_locked_version(network):
    network.hf.commit("acme/focal", FILES)
    with pytest.raises(LockError, match=r"twinkle hub add hf://acme/focal\), or name two revisions"):
        compare(network.pins(), "hf://acme/focal", "lock", None)


def test_nothing_of_a_repository_is_executed(network, caplog):
    caplog.set_level(logging.WARNING)
    trap = network.folder / "executed"
    files = {**FILES, "__init__.py": f"open({str(trap)!r}, 'w')\n".encode(), "parts.py": f"open({str(trap)!r}, 'w')\n".encode()}
    one = network.hf.commit("acme/focal", files)
    lock = network.lock("hf://acme/focal")
    network.hf.commit("acme/focal", {**files, "parts.py": b"import os\n"})
    pins = network.pins(lock)
    for table, entry in entries(lock):
        pins.sync(table, entry)
        pins.stored(table, entry)
        pins.remote(table, entry)
        pins.move(table, entry)
    compare(pins, "hf://acme/focal", one, None)
    assert not trap.exists()


def test_a_private_repository_that_isnt_shown_is_an_error_of_the_hub(network):
    with pytest.raises(HubError, match="no such repository"):
        network.pins().component("hf://acme/private")


def test_models_are_compared_by_their_text_and_the_names_of_their_other_files(network):
    files = {"config.json": b"old\n", "gone.bin": b"1", "same.bin": b"1"}
    network.hf.commit("acme/m", files)
    lock = LockFile(network.folder / LOCK).with_repository(network.pins().repository("acme/m", "model"), "model")
    network.hf.commit("acme/m", {"config.json": b"new\n", "same.bin": b"2", "z.safetensors": b"3"})
    found = compare_repository(network.pins(lock), "acme/m", "model", "lock", None)
    assert [(row.path, row.change) for row in found.files] == [
        ("config.json", "changed"),
        ("gone.bin", "removed"),
        ("z.safetensors", "added"),
    ]
    assert "-old\n+new\n" in found.files[0].diff
    assert not list((network.folder / "hf").rglob("*.bin"))
    with pytest.raises(LockError, match="twinkle hub add --dataset hf://acme/m"):
        compare_repository(network.pins(lock), "acme/m", "dataset", "lock", None)
