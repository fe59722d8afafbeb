"""The hub ``tiny://``: everything resolves to whole folders, with no network and no half-written cache."""

import json
import threading
from pathlib import Path

import pytest

from twinkle_hub.errors import HubError, RepositoryNotFoundError, RevisionNotFoundError
from twinkle_hub.hub import Hub
from twinkle_plugin_tiny import hub as hub_module
from twinkle_plugin_tiny.hub import TinyHub

GENERATED = ["data/arithmetic", "data/countdown"]
EVERYTHING = ["models/twinkle-tiny-qwen3", "data/self-cognition", *GENERATED]


@pytest.fixture
def hub(tmp_path: Path) -> TinyHub:
    return TinyHub(tmp_path)


def rows_of(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_is_a_hub(hub):
    assert isinstance(hub, Hub)
    assert hub.scheme == "tiny"


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_repository_is_a_folder_with_a_card(hub, name):
    folder = hub.download(name, offline=True)
    assert (folder / "README.md").read_text(encoding="utf-8").strip()
    assert sorted(hub.list_files(name)) == sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


def test_the_model_is_whole(hub):
    folder = hub.download("models/twinkle-tiny-qwen3")
    expected = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert expected <= set(hub.list_files("models/twinkle-tiny-qwen3"))
    assert (folder / "model.safetensors").stat().st_size == 8_990_808


@pytest.mark.parametrize("name", GENERATED)
def test_generated_data_have_both_splits(hub, name):
    folder = hub.download(name)
    assert len(rows_of(folder, "train")) == 2000
    assert len(rows_of(folder, "test")) == 200


@pytest.mark.parametrize(
    ("name", "commit"),
    [
        ("data/arithmetic", "40aed7e509b6487754ffd537eef376745fd6c1e6333d3b8973ee1d77c6702ab6"),
        ("data/countdown", "fdd370a6d79fe912c053d8a0b68f5c9556c67c04eebdeee1ef871c6c43649adc"),
    ],
)
def test_generated_data_are_the_same_everywhere(hub, name, commit):
    # Where this fails because a generator was changed on purpose: raise _GENERATION in hub.py, so that no cache serves old rows.
    assert hub.resolve(name) == commit


@pytest.mark.parametrize("name", GENERATED)
def test_generated_data_are_written_once(hub, name):
    first = hub.download(name)
    before = (first / "train.jsonl").stat().st_mtime_ns
    assert hub.download(name) == first
    assert (first / "train.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", GENERATED)
def test_an_interrupted_generation_leaves_nothing_and_the_next_one_works(hub, name, monkeypatch, tmp_path):
    def stop(split):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(hub_module._GENERATORS, name, stop)
        with pytest.raises(KeyboardInterrupt):
            hub.download(name)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".")] == []
    assert len(rows_of(hub.download(name), "train")) == 2000


def test_many_at_once_get_the_same_whole_folder(hub, tmp_path):
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(hub.download("data/arithmetic"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(rows_of(found[0], "train")) == 2000
    assert [path.name for path in found[0].parent.iterdir()] == ["arithmetic"]


def test_a_name_that_is_not_there_is_refused_with_the_nearest_one(hub):
    with pytest.raises(RepositoryNotFoundError, match=r"no tiny://data/selfcognition. Did you mean tiny://data/self-cognition"):
        hub.download("data/selfcognition")


@pytest.mark.parametrize("name", ["models", "data", ".", "hub.py", "models/../data/self-cognition"])
def test_nothing_else_of_the_package_can_be_fetched(hub, name):
    with pytest.raises(RepositoryNotFoundError):
        hub.download(name)


@pytest.mark.parametrize("name", EVERYTHING)
def test_there_is_no_revision_but_main(hub, name):
    assert hub.download(name, revision="main") == hub.download(name)
    with pytest.raises(RevisionNotFoundError, match="v2"):
        hub.download(name, revision="v2")


def test_a_home_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(HubError, match=r"can't be written to .*home.* Set TWINKLE_HOME"):
        TinyHub(tmp_path / "home").download("data/countdown")
