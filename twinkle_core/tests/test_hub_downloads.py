"""Models and data sets by reference: ``twinkle.hub``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twinkle.component import default_registry
from twinkle.errors import HubError, LockError
from twinkle.hub import download_dataset, download_model
from twinkle_hub.digest import digest_of_folder
from twinkle_hub.testing import HfServer, MsServer
from twinkle_registry.lock import LockedRepository, LockFile

DOWNLOADS = [download_model, download_dataset]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty project as the working folder, with a registry of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "home"))
    for name in ("TWINKLE_OFFLINE", "HF_HUB_OFFLINE", "TWINKLE_LOCKED"):
        monkeypatch.delenv(name, raising=False)
    default_registry.cache_clear()
    yield folder
    default_registry.cache_clear()


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def mirror(project: Path, **entries: str) -> None:
    lines = "\n".join(f'"{key.replace("__", "://")}" = "{value}"' for key, value in entries.items())
    (project / "twinkle.toml").write_text(f"schema = 1\n[mirror]\n{lines}\n")


@pytest.mark.parametrize("download", DOWNLOADS)
def test_an_existing_path_is_returned_as_it_is(download, model):
    assert download(str(model)) == download(model) == model
    assert download(model / "config.json") == model / "config.json"


def test_an_existing_path_needs_no_project(project, model):
    (project / "twinkle.toml").write_text("this is no toml")
    assert download_model(model) == model


@pytest.mark.parametrize("download", DOWNLOADS)
def test_a_file_reference_is_its_folder(download, model):
    assert download(f"file://{model}") == model


@pytest.mark.parametrize("download", DOWNLOADS)
def test_the_projects_mirror_replaces_a_reference(download, project, model):
    mirror(project, **{"ms__Qwen/Qwen3-0.6B": f"file://{model}"})
    assert download("ms://Qwen/Qwen3-0.6B") == model


def test_a_mirror_may_be_a_path_relative_to_the_projects_file(project, model, monkeypatch, tmp_path):
    mirror(project, **{"ms__Qwen/Qwen3-0.6B": "file://../models/tiny"})
    (project / "deeper").mkdir()
    monkeypatch.chdir(project / "deeper")
    assert download_model("ms://Qwen/Qwen3-0.6B") == model


def test_a_data_set_may_be_mirrored_to_a_single_file(project, model):
    mirror(project, **{"ms__swift/self-cognition": f"file://{model}/config.json"})
    assert download_dataset("ms://swift/self-cognition") == model / "config.json"


def test_a_reference_that_isnt_there_is_named_with_the_way_out(tmp_path):
    with pytest.raises(HubError, match=r"no/such doesn't exist"):
        download_model(f"file://{tmp_path}/no/such")


def test_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(HubError, match=r"nope://.*file://.*hf://.*ms://"):
        download_model("nope://a/b")


def test_offline_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TWINKLE_OFFLINE", "1")
    with pytest.raises(HubError, match="offline"):
        download_model("hf://acme/never-downloaded-before")


def test_zero_doesnt_mean_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("TWINKLE_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HubError, match="can't be reached"):
        download_model("hf://acme/m")


def test_models_and_data_sets_come_from_hugging_face(tmp_path):
    with HfServer() as server:
        commit = server.repositories.commit("acme/m", {"config.json": b"model", "big.bin": b"1"})
        server.repositories.commit("acme/m", {"train.jsonl": b"{}"}, repo_type="dataset")
        code = (
            "from twinkle.hub import download_dataset, download_model;"
            f"print(*(p.name for p in download_model('acme/m', revision='{commit}', ignore_patterns=['*.bin']).iterdir()));"
            "print((download_dataset('hf://acme/m') / 'train.jsonl').read_text())"
        )
        # In a process of its own: the client reads these when it is imported.
        environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["config.json", "{}"]


def test_models_and_data_sets_come_from_modelscope(monkeypatch, tmp_path):
    with MsServer() as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
        server.repositories.commit("acme/m", {"config.json": b"model", "big.bin": b"1"})
        server.repositories.commit("acme/m", {"train.jsonl": b"{}"}, repo_type="dataset")
        folder = download_model("ms://acme/m", allow_patterns=["*.json"])
        assert [path.name for path in folder.iterdir()] == ["config.json"]
        assert (download_dataset("ms://acme/m@master") / "train.jsonl").read_text() == "{}"


@pytest.fixture
def ms(monkeypatch, tmp_path):
    """A hub whose client is this process's."""
    with MsServer() as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
        monkeypatch.setattr("urllib3.util.retry.Retry.get_backoff_time", lambda self: 0)
        yield server.repositories


def pin(project: Path, reference: str, commit: str, *repo_types: str, **fields: object) -> None:
    lock = LockFile.read(project / "twinkle.lock")
    for repo_type in repo_types or ("model",):
        lock = lock.with_repository(LockedRepository(reference, commit, **fields), repo_type)
    lock.save()


def test_a_locked_reference_stays_at_its_commit(ms, project):
    for repo_type in ("model", "dataset"):
        commit = ms.commit("acme/m", {"a.json": b"old"}, repo_type=repo_type)
        pin(project, "ms://acme/m", commit, repo_type)
        ms.commit("acme/m", {"a.json": b"new"}, repo_type=repo_type)
    assert (download_model("ms://acme/m") / "a.json").read_text() == "old"
    assert (download_dataset("ms://acme/m") / "a.json").read_text() == "old"
    assert (download_model("ms://acme/m@master") / "a.json").read_text() == "new"  # another reference


def test_a_revision_is_part_of_a_locked_reference_however_it_is_given(ms, project):
    commit = ms.commit("acme/m", {"a.json": b"old"})
    pin(project, "ms://acme/m@master", commit)
    ms.commit("acme/m", {"a.json": b"new"})
    assert (download_model("ms://acme/m", revision="master") / "a.json").read_text() == "old"


def test_a_part_of_a_locked_model_can_be_fetched_alone(ms, project):
    commit = ms.commit("acme/m", {"tokenizer.json": b"old", "model.safetensors": b"1"})
    pin(project, "ms://acme/m", commit, allow_patterns=("*.json", "*.safetensors"))
    ms.commit("acme/m", {"tokenizer.json": b"new"})
    folder = download_model("ms://acme/m", allow_patterns=["tokenizer*"])
    assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]
    assert (folder / "tokenizer.json").read_text() == "old"


def test_a_locked_reference_needs_no_network_once_it_is_fetched(ms, project, monkeypatch):
    commit = ms.commit("acme/m", {"a.json": b"old"})
    pin(project, "ms://acme/m", commit)
    download_model("ms://acme/m")
    monkeypatch.setenv("TWINKLE_OFFLINE", "1")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    assert (download_model("ms://acme/m") / "a.json").read_text() == "old"


def test_where_only_the_lock_counts_others_are_refused_and_nothing_is_asked(ms, project, monkeypatch):
    commit = ms.commit("acme/m", {"a.json": b"old"})
    pin(project, "ms://acme/m", commit)
    monkeypatch.setenv("TWINKLE_LOCKED", "1")
    assert (download_model("ms://acme/m") / "a.json").read_text() == "old"
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    for other in ("ms://acme/m@master", "ms://acme/other"):
        with pytest.raises(LockError, match=f"{other} isn't in .*twinkle hub add --model {other}"):
            download_model(other)
    with pytest.raises(LockError, match="twinkle hub add --dataset ms://acme/m"):
        download_dataset("ms://acme/m")


def test_where_only_the_lock_counts_paths_of_this_machine_may_be_used(model, monkeypatch):
    monkeypatch.setenv("TWINKLE_LOCKED", "1")
    assert download_model(str(model)) == model


def test_the_lock_is_looked_up_behind_the_projects_mirror(project, model, monkeypatch):
    mirror(project, **{"ms__Qwen/Qwen3-0.6B": f"file://{model}"})
    monkeypatch.setenv("TWINKLE_LOCKED", "1")
    with pytest.raises(LockError, match=f"twinkle hub add --model file://{model}"):
        download_model("ms://Qwen/Qwen3-0.6B")
    pin(project, f"file://{model}", digest_of_folder(model))
    assert download_model("ms://Qwen/Qwen3-0.6B") == model


def test_a_locked_folder_that_was_changed_is_refused_with_the_way_out(project, model):
    pin(project, f"file://{model}", digest_of_folder(model))
    assert download_model(f"file://{model}") == model
    (model / "config.json").write_text("{1}")
    with pytest.raises(HubError, match=rf"is pinned to that commit by {project}/twinkle.lock.*twinkle hub lock --update"):
        download_model(f"file://{model}")


def test_a_lock_that_isnt_valid_stops_the_download(project, model):
    (project / "twinkle.lock").write_text("<<<<<<< HEAD")
    with pytest.raises(LockError, match=r"twinkle.lock:1: isn't valid TOML"):
        download_model(f"file://{model}")
