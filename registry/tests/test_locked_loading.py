"""What the lock does when components are loaded and unpickled: its bytes or none, from wherever they can be had."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from twinkle_hub.digest import digest_of, sha256_of
from twinkle_hub.errors import HubError, NotCachedError
from twinkle_hub.local import FileHub
from twinkle_registry.errors import PluginLoadError, TrustError
from twinkle_registry.lock import LOCK, LockedComponent, LockFile
from twinkle_registry.locking import Pins
from twinkle_registry.project import Project
from twinkle_registry.registry import Registry
from twinkle_registry.store import ComponentStore, component_files
from twinkle_registry.trust_store import TrustStore

SOURCE = """\
from pathlib import Path
Path({mark!r}).touch()
class Base: pass
class FocalLoss(Base):
    gamma = {gamma}
"""
REFERENCE = "far://acme/focal@v1"


@pytest.fixture(autouse=True)
def nothing_is_trusted(trusted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWINKLE_TRUST_REMOTE_CODE", "TWINKLE_POLICY", "TWINKLE_LOCKED", "TWINKLE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


class Publisher:
    """Repositories with revisions, as the ``file`` hub reads them; commits are digests."""

    def __init__(self, root: Path, mark: Path) -> None:
        self.root = root
        self.mark = mark

    def publish(self, name: str, gamma: int, *revisions: str) -> str:
        """A new commit of the repository, to which ``revisions`` point from now on."""
        repository = self.root / name
        draft = repository / "draft"
        draft.mkdir(parents=True)
        manifest = '[plugin]\nname = "focal"\nversion = "1.0"\napi = ">=1,<2"\n'
        component = '[[component]]\nkind = "loss"\nname = "FocalLoss"\nentry = "loss:FocalLoss"\n'
        (draft / "twinkle.toml").write_text(f"schema = 1\n{manifest}{component}")
        (draft / "loss.py").write_text(SOURCE.format(mark=str(self.mark), gamma=gamma))
        commit = digest_of({path: sha256_of(draft / path) for path in component_files(draft)})
        (repository / "snapshots").mkdir(exist_ok=True)
        draft.rename(repository / "snapshots" / commit)
        for revision in ("main", *revisions):
            (repository / "refs").mkdir(exist_ok=True)
            (repository / "refs" / revision).write_text(commit)
        return commit


@pytest.fixture
def far(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "far", tmp_path / "executed")


@pytest.fixture
def near(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "near", tmp_path / "executed")


@pytest.fixture
def new_process(make_registry, far: Publisher, near: Publisher, tmp_path: Path) -> Callable[..., Registry]:
    """A registry as another process has it: with the hubs ``far`` and ``near``, and nothing imported yet."""

    def make(**options: object) -> Registry:
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "HubFinder"]
        for name in [name for name in sys.modules if name.startswith("twinkle._hub.")]:
            del sys.modules[name]
        registry = make_registry(**{"project": Project(tmp_path / "twinkle.toml"), **options})
        registry.hubs.add(FileHub(far.root, scheme="far"))
        registry.hubs.add(FileHub(near.root, scheme="near"))
        return registry

    return make


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., None]:
    def pin(digest: str, *mirrors: str, reference: str = REFERENCE, commit: str | None = None) -> None:
        entry = LockedComponent(reference, commit or digest, digest, ("loss",), mirrors)
        LockFile.read(tmp_path / LOCK).with_component(entry).save()

    return pin


def test_what_is_locked_is_allowed_and_loaded(far, lock, new_process):
    lock(far.publish("acme/focal", 1, "v1"))
    assert new_process().load("loss", REFERENCE).gamma == 1
    assert new_process().load("loss", f"{REFERENCE.replace('@', '/FocalLoss@')}").gamma == 1


def test_what_is_locked_and_stored_needs_no_hub(far, lock, new_process):
    lock(far.publish("acme/focal", 1, "v1"))
    new_process().load("loss", REFERENCE)
    shutil.rmtree(far.root)
    assert new_process().load("loss", REFERENCE).gamma == 1


@pytest.fixture
def locked_folder(far, lock, tmp_path: Path) -> Path:
    """A plain folder with the component, in the lock as it is."""
    folder = tmp_path / "focal"
    shutil.move(far.root / "acme/focal/snapshots" / far.publish("acme/focal", 1), folder)
    lock(ComponentStore(tmp_path / "other").add(folder), reference=f"file://{folder}")
    return folder


def test_a_folder_that_was_edited_after_it_was_locked_is_refused_though_the_store_has_what_it_was(locked_folder, far, new_process):
    new_process().load("loss", f"file://{locked_folder}")
    far.mark.unlink()
    (locked_folder / "loss.py").write_text(SOURCE.format(mark=str(far.mark), gamma=2))
    with pytest.raises(TrustError, match=f"changed after it was locked.*twinkle hub add file://{locked_folder}"):
        new_process().load("loss", f"file://{locked_folder}")
    assert not far.mark.exists()


def test_a_locked_folder_that_is_gone_is_loaded_from_the_store(locked_folder, new_process):
    new_process().load("loss", f"file://{locked_folder}")
    shutil.rmtree(locked_folder)
    assert new_process().load("loss", f"file://{locked_folder}").gamma == 1


def test_a_digest_in_the_reference_means_those_bytes_whatever_became_of_the_folder(locked_folder, new_process):
    new_process().load("loss", f"file://{locked_folder}")
    digest = digest_of({path: sha256_of(locked_folder / path) for path in component_files(locked_folder)})
    (locked_folder / "loss.py").write_text("raise SystemExit")
    assert new_process().load("loss", f"file://{locked_folder}#sha256:{digest}").gamma == 1


def test_a_moved_tag_still_stands_for_what_was_locked(far, lock, new_process):
    lock(far.publish("acme/focal", 1, "v1"))
    far.publish("acme/focal", 666, "v1")
    assert new_process().load("loss", REFERENCE).gamma == 1


def test_other_bytes_under_the_locked_commit_are_refused(far, lock, new_process):
    commit = far.publish("acme/focal", 1, "v1")
    lock(commit)
    (far.root / "acme/focal/snapshots" / commit / "more.py").write_text("x = 1")
    with pytest.raises(TrustError, match=f"changed after it was locked: .* holds sha256:{commit}, and far://acme/focal@{commit}"):
        new_process().load("loss", REFERENCE)
    assert not far.mark.exists()


def test_a_repository_registered_anew_by_somebody_else_is_refused(far, lock, new_process):
    lock(far.publish("acme/focal", 1, "v1"))
    shutil.rmtree(far.root / "acme/focal")
    far.publish("acme/focal", 666, "v1")
    with pytest.raises(TrustError, match="changed after it was locked: no place gives what"):
        new_process().load("loss", REFERENCE)
    assert not far.mark.exists()


def test_a_locked_mirror_helps_out_with_the_same_bytes(far, near, lock, new_process):
    commit = far.publish("acme/focal", 1, "v1")
    near.publish("kit/focal", 1)
    shutil.rmtree(far.root)
    lock(commit, f"near://kit/focal@{commit}")
    assert new_process().load("loss", REFERENCE).gamma == 1


def test_a_locked_mirror_with_other_bytes_is_refused(far, near, lock, new_process):
    commit = far.publish("acme/focal", 1, "v1")
    other = near.publish("kit/focal", 666)
    shutil.rmtree(far.root)
    lock(commit, f"near://kit/focal@{other}")
    with pytest.raises(TrustError, match=rf"changed after it was locked.*near://kit/focal@{other} gave sha256:{other}"):
        new_process().load("loss", REFERENCE)
    assert not far.mark.exists()


def test_the_projects_mirror_has_to_give_the_locked_bytes(far, near, lock, new_process, tmp_path: Path):
    lock(far.publish("acme/focal", 1, "v1"))
    near.publish("kit/focal", 1, "v1")
    project = Project(tmp_path / "twinkle.toml", mirror={"far://acme/focal": "near://kit/focal"})
    shutil.rmtree(far.root)
    assert new_process(project=project).load("loss", REFERENCE).gamma == 1
    shutil.rmtree(tmp_path / "home")
    near.publish("kit/focal", 666, "v1")
    with pytest.raises(TrustError, match="changed after it was locked"):
        new_process(project=project).load("loss", REFERENCE)


def test_a_digest_in_the_reference_that_the_lock_does_not_hold_is_refused(far, lock, new_process):
    lock(far.publish("acme/focal", 1, "v1"))
    with pytest.raises(TrustError, match=rf"sha256:{'0' * 64} was asked for, and .*twinkle\.lock holds"):
        new_process().load("loss", f"{REFERENCE}#sha256:{'0' * 64}")


def test_files_that_were_edited_in_the_store_are_not_executed(far, lock, new_process, home: Path):
    commit = far.publish("acme/focal", 1, "v1")
    lock(commit)
    ComponentStore(home).add(far.root / "acme/focal/snapshots" / commit)
    stored = home / "components" / "sha256" / commit / "loss.py"
    stored.chmod(0o644)
    stored.write_text(SOURCE.format(mark=str(far.mark), gamma=666))
    with pytest.raises(PluginLoadError, match="changed or damaged"):
        new_process().load("loss", REFERENCE)
    assert not far.mark.exists()
    assert new_process().load("loss", REFERENCE).gamma == 1


def test_offline_what_is_locked_and_missing_says_so(far, lock, new_process, monkeypatch: pytest.MonkeyPatch):
    lock(far.publish("acme/focal", 1, "v1"))

    class Away(FileHub):
        def resolve(self, *args: object, **options: object) -> str:
            raise NotCachedError.of("far://acme/focal")

    registry = new_process()
    registry.hubs._hubs["far"] = Away(far.root, scheme="far")
    with pytest.raises(HubError, match="can't be fetched as it was locked"):
        registry.load("loss", REFERENCE)


def test_a_class_unpickles_where_only_the_lock_knows_its_bytes(far, lock, new_process, home: Path):
    lock(far.publish("acme/focal", 1, "v1"))
    first = new_process()
    pickled = pickle.dumps(first.load("loss", REFERENCE)())
    elsewhere = new_process(home=home.with_name("elsewhere"))
    far.mark.unlink()
    digest = pickled.partition(b"sha256_")[2][:64].decode()
    grant, repository = elsewhere.stored(digest)
    assert (grant.request.repository, grant.request.kind, repository.digest) == ("far://acme/focal", "loss", digest)
    assert not far.mark.exists()


@pytest.mark.parametrize("value", ["0", "1"])
def test_an_unknown_digest_is_never_unpickled(new_process, monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", value)
    with pytest.raises(TrustError, match="nobody here knows them"):
        new_process().stored("0" * 64)


def test_what_was_allowed_by_its_owner_unpickles_where_the_store_knows_the_owner(far, new_process, home: Path):
    TrustStore(home).allow_owner("far://acme", "loss")
    digest = far.publish("acme/focal", 1, "v1")
    new_process().load("loss", REFERENCE)
    grant, _ = new_process().stored(digest)
    assert grant.request.owner == "far://acme"


def test_what_an_allowed_owner_did_not_give_does_not_unpickle(far, new_process, home: Path):
    TrustStore(home).allow_owner("far://acme", "loss")
    digest = far.publish("evil/focal", 666)
    ComponentStore(home).add(far.root / "evil/focal/snapshots" / digest)
    with pytest.raises(TrustError, match="nothing allows it"):
        new_process().stored(digest)


def test_a_revoked_digest_does_not_unpickle_although_it_is_locked(far, lock, new_process, home: Path, tmp_path: Path, monkeypatch):
    digest = far.publish("acme/focal", 1, "v1")
    lock(digest)
    new_process().load("loss", REFERENCE)
    (tmp_path / "policy.toml").write_text(f'schema = 1\n[[deny]]\ndigest = "sha256:{digest}"\n')
    monkeypatch.setenv("TWINKLE_POLICY", str(tmp_path / "policy.toml"))
    with pytest.raises(TrustError, match="denies it"):
        new_process().stored(digest)


CALL = "\n    def __call__(self, inputs, outputs, **kwargs):\n        raise NotImplementedError\n"
UNPICKLE = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).gamma)"


@pytest.mark.parametrize(("locked", "expected"), [(True, "1"), (False, "nobody here knows them")])
def test_a_new_process_unpickles_what_its_projects_lock_holds_and_nothing_else(
    new_process, write, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool, expected: str
):
    far = Publisher(tmp_path / "plain", tmp_path / "executed")
    commit = far.publish("focal", 1)
    folder = far.root / "focal"
    TrustStore(home).allow_owner(f"file://{folder}", "loss")
    (tmp_path / "instance").write_bytes(pickle.dumps(new_process().load("loss", f"file://{folder}")()))
    far.mark.unlink()
    project = tmp_path / "project"
    project.mkdir()
    (project / "twinkle.toml").write_text("schema = 1\n")
    if locked:
        LockFile.read(project / LOCK).with_component(LockedComponent(f"file://{folder}", commit, commit, ("loss",))).save()
    environment = {**os.environ, "TWINKLE_HOME": str(home.with_name("elsewhere"))}
    command = [sys.executable, "-c", UNPICKLE, str(tmp_path / "instance")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=project, check=False)
    assert expected in (done.stdout if locked else done.stderr)
    assert far.mark.exists() is locked
    assert not (home.with_name("elsewhere") / "components" / "sha256").exists() or locked


SPAWN = """\
import multiprocessing, sys
from twinkle.component import load_component

def main():
    loaded = load_component("loss", sys.argv[1])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(getattr, (loaded(), "gamma")))

if __name__ == "__main__":
    main()
"""


def test_an_instance_reaches_a_spawned_process_under_the_same_lock(write, home: Path, tmp_path: Path):
    far = Publisher(tmp_path / "plain", tmp_path / "executed")
    commit = far.publish("focal", 1)
    file = far.root / "focal/snapshots" / commit / "loss.py"
    file.write_text(file.read_text().replace("class Base: pass", "from twinkle.loss import Loss as Base") + CALL)
    shutil.move(file.parent, tmp_path / "focal")
    folder = tmp_path / "focal"
    digest = ComponentStore(tmp_path / "other").add(folder)
    (tmp_path / "twinkle.toml").write_text("schema = 1\n")
    LockFile.read(tmp_path / LOCK).with_component(LockedComponent(f"file://{folder}", digest, digest, ("loss",))).save()
    (tmp_path / "spawn.py").write_text(SPAWN)
    command = [sys.executable, str(tmp_path / "spawn.py"), f"file://{folder}"]
    environment = {**os.environ, "TWINKLE_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "1", done.stderr


def test_a_lock_of_another_user_pins_and_permits_nothing(
    far: Publisher, new_process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    far.publish("acme/focal", 1, "v1")
    entry = Pins(new_process(), ComponentStore(tmp_path / "home")).component(REFERENCE)[0]
    LockFile(tmp_path / LOCK).with_component(entry).save()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    monkeypatch.setattr(os, "fstat", lambda number, there=os.fstat: _as_if_of(there(number), me + 2))
    with pytest.raises(TrustError, match="nothing allows it"):
        new_process().load("loss", REFERENCE)
    assert new_process().lock.component(REFERENCE) == entry
    assert "belongs to another user" in caplog.text
    assert not far.mark.exists()


def _as_if_of(found: os.stat_result, owner: int) -> os.stat_result:
    return os.stat_result((*found[:4], owner, *found[5:10]))
