"""Models and data sets by reference: ``twinkle.hub``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twinkle.component import default_registry
from twinkle.errors import HubError
from twinkle.hub import download_dataset, download_model
from twinkle_hub.testing import HfServer, MsServer

DOWNLOADS = [download_model, download_dataset]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty project as the working folder, with a registry of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "home"))
    for name in ("TWINKLE_OFFLINE", "HF_HUB_OFFLINE"):
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
