"""The bill of materials: what is noted, that it is the same for the same run, what a diff says, and what verifying finds."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import twinkle.component
from twinkle import DeviceMesh, initialize
from twinkle.checkpoint_index import write_index
from twinkle.cli.app import build_app
from twinkle.component import load_component, make_component
from twinkle.data_format import LossOutput
from twinkle.errors import CheckpointError
from twinkle.hub import download_dataset, download_model
from twinkle.loss import Loss
from twinkle.platform import DEVICE_VARIABLE
from twinkle.reward import Reward
from twinkle.run_diff import diff_runs
from twinkle.run_record import RUN_FILE, read_run, record_repository
from twinkle.run_sources import EDGE_BYTES, WHOLE_BYTES, fingerprint, git_commit, plain_data, portable_path
from twinkle.run_verify import check_resume, verify_run
from twinkle.runtime import current_runtime, use_runtime
from twinkle_registry.registry import Registry

LOSS = """
from twinkle.loss import Loss

class {name}(Loss):
    def __init__(self, gamma=2.0):
        self._gamma = gamma
    def __call__(self, inputs, outputs, **kwargs):
        return {{"loss": self._gamma, "num_tokens": 1.0}}
"""

MANIFEST = """
schema = 1
[plugin]
name = "focal"
version = "1.0.0"
api = ">=1,<2"
license = "MIT"
summary = "made for a test"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
"""

SECRET = "hf_abcdefghijklmnopqrstuvwx"


class OwnLoss(Loss):
    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def __call__(self, inputs, outputs, **kwargs):
        return LossOutput(loss=self.gamma, num_tokens=1.0)


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh process, whose one installed plugin has a loss, and a working folder of its own."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "site"
    package = folder / f"run_record_plugin_{abs(hash(tmp_path))}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "loss.py").write_text(LOSS.format(name="FocalLoss"))
    (package / "twinkle.toml").write_text(MANIFEST)
    info = folder / "twinkle_plugin_focal-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twinkle-plugin-focal\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[twinkle.plugins]\nfocal = {package.name}\n")
    monkeypatch.syspath_prepend(str(folder))
    registry = functools.cache(lambda: Registry(path=[str(folder)], home=tmp_path / "home"))
    monkeypatch.setattr(twinkle.component, "default_registry", registry)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with use_runtime(None):
        yield folder


def plain(**details: Any) -> dict[str, Any]:
    runtime = current_runtime()
    return runtime.record.as_plain(runtime, **details)


def write_checkpoint(name: str, *, model: dict[str, Any] | None = None, components: Any = ()) -> Path:
    """A checkpoint of the current run, with weights that are none."""
    folder = Path(name)
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    runtime = current_runtime()
    runtime.record.write(folder, runtime, model=model or {}, components=components)
    write_index(folder)
    return folder


def cli(*arguments: str) -> Any:
    return CliRunner().invoke(build_app(with_plugins=False), ["run", *arguments], env={"COLUMNS": "300"})


class TestComponents:
    def test_an_installed_component_is_noted_with_reference_distribution_version_code_and_config(self):
        loss = make_component("loss", "FocalLoss", gamma=1.5)
        [row] = plain(components=[("loss", loss)])["components"]
        assert (row["kind"], row["reference"], row["config"]) == ("loss", "FocalLoss", {"gamma": 1.5})
        source = row["source"]
        assert (source["distribution"], source["version"]) == ("twinkle-plugin-focal", "1.0.0")
        assert source["code"].startswith("sha256:")
        assert source["entry"].endswith(".loss:FocalLoss")

    def test_an_instance_is_noted_with_its_class_its_source_and_its_attributes(self):
        loss = make_component("loss", OwnLoss(3.0))
        [row] = plain(components=[("loss", loss)])["components"]
        assert row["reference"] is None
        assert row["config"] == {"gamma": 3.0}
        assert row["source"]["entry"].endswith(":OwnLoss")
        assert len(row["source"]["source"]) == 64

    def test_a_function_is_noted_with_its_source(self):
        make_component("reward", lambda trajectories, **kwargs: [0.0])
        [row] = plain()["components"]
        assert row["kind"] == "reward"
        assert len(row["source"]["source"]) == 64

    def test_of_the_models_own_kinds_only_what_the_model_names_is_listed(self):
        make_component("loss", "FocalLoss")
        used = make_component("loss", OwnLoss)
        assert [row["source"]["entry"].rpartition(":")[2] for row in plain(components=[("loss", used)])["components"]] == [
            "OwnLoss"
        ]

    def test_what_was_imported_and_built_is_listed_once(self):
        load_component("loss", "FocalLoss")
        loss = make_component("loss", "FocalLoss", gamma=1.0)
        assert len(plain(components=[("loss", loss), ("loss", loss)])["components"]) == 1

    def test_what_was_used_before_initialize_belongs_to_the_run(self):
        make_component("reward", lambda trajectories, **kwargs: [0.0])
        initialize(seed=3)
        assert [row["kind"] for row in plain()["components"]] == ["reward"]

    def test_a_second_run_does_not_list_what_the_first_one_built(self):
        initialize(seed=3)
        make_component("reward", lambda trajectories, **kwargs: [0.0])
        initialize(seed=4)
        assert plain()["components"] == []

    def test_a_component_of_a_hub_is_noted_with_repository_commit_and_digest(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
        folder = tmp_path / "acme"
        folder.mkdir()
        (folder / "loss.py").write_text(LOSS.format(name="FocalLoss"))
        (folder / "twinkle.toml").write_text(MANIFEST)
        loss = make_component("loss", f"file://{folder}")
        [row] = plain(components=[("loss", loss)])["components"]
        assert row["reference"] == row["source"]["repository"] == f"file://{folder}"
        assert row["source"]["digest"] == f"sha256:{row['source']['commit']}"  # of a plain folder they are the same


class TestRepositories:
    def test_a_local_model_is_noted_by_its_path_and_what_its_files_hold(self):
        Path("model").mkdir()
        Path("model/config.json").write_text("{}")
        download_model("model")
        [row] = plain()["repositories"]
        assert (row["kind"], row["reference"], row["files"], row["bytes"]) == ("model", "./model", 1, 2)
        assert row["digest"] == fingerprint(Path("model"))["digest"]

    def test_files_that_were_not_asked_for_do_not_count(self):
        Path("model").mkdir()
        Path("model/tokenizer.json").write_text("{}")
        download_model("model", allow_patterns=["tokenizer*"])
        before = plain()["repositories"]
        Path("model/weights.bin").write_text("later")
        download_model("model", allow_patterns=["tokenizer*"])
        assert plain()["repositories"] == before
        assert before[0]["patterns"] == {"allow": ["tokenizer*"], "ignore": None}

    def test_what_of_a_data_set_is_used_is_added_to_it(self):
        Path("rows.jsonl").write_text("{}\n")
        path = download_dataset("rows.jsonl")
        record_repository("dataset", "rows.jsonl", path, split="train", slice=range(8))
        [row] = plain()["repositories"]
        assert row["uses"] == [{"slice": "range(0, 8, 1)", "split": "train"}]

    def test_the_commit_is_that_of_the_hubs_snapshot(self, tmp_path):
        commit = "a" * 40
        repository = tmp_path / "repository"
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        download_model(f"file://{repository}")
        assert plain()["repositories"][0]["commit"] == commit

    def test_a_large_file_is_known_by_its_size_and_both_ends(self, tmp_path):
        file = tmp_path / "weights.safetensors"
        content = bytearray(WHOLE_BYTES + 2 * EDGE_BYTES)
        digests = set()
        for place in (None, 0, len(content) - 1):
            if place is not None:
                content[place] = 1
            file.write_bytes(content)
            digests.add(fingerprint(file)["digest"])
        file.write_bytes(content + b"\0")
        digests.add(fingerprint(file)["digest"])
        assert len(digests) == 4


class TestPlainData:
    def test_the_same_run_gives_the_same_bytes(self, tmp_path):
        def run(folder: str) -> bytes:
            with use_runtime(None):
                initialize(seed=5, name="same", global_device_mesh=DeviceMesh.from_sizes())
                loss = make_component("loss", "FocalLoss", gamma=1.0)
                make_component("reward", OwnReward)
                return (write_checkpoint(folder, components=[("loss", loss)]) / RUN_FILE).read_bytes()

        assert run("a") == run("b")

    @pytest.mark.parametrize("name", ["hub_token", "password", "api_key", "webhook_url"])
    def test_values_whose_name_says_secret_are_blotted_out(self, name):
        assert plain_data({name: "something"}) == {name: "***"}

    def test_a_token_is_blotted_out_wherever_it_stands(self):
        assert SECRET not in json.dumps(plain_data({"note": f"use {SECRET}", "list": [SECRET]}))

    def test_options_of_training_that_sound_like_secrets_stay(self):
        options = {"max_tokens": 5, "eos_token_id": 1, "tokenizer": "x"}
        assert plain_data(options) == options

    def test_no_address_of_an_object_is_in_it(self):
        assert "0x" not in json.dumps(plain_data({"object": object(), "function": lambda: 0, "set": {3, 1}, "nan": float("nan")}))

    def test_paths_are_relative_to_the_working_folder(self):
        assert portable_path(Path.cwd() / "data" / "rows.jsonl") == "./data/rows.jsonl"
        assert portable_path("/elsewhere/rows.jsonl") == "/elsewhere/rows.jsonl"

    @pytest.mark.parametrize("packed", [False, True])
    def test_the_commit_of_a_checkout_is_read_from_gits_own_files(self, tmp_path, packed):
        git = tmp_path / ".git"
        (git / "refs" / "heads").mkdir(parents=True)
        (git / "HEAD").write_text("ref: refs/heads/main\n")
        if packed:
            (git / "packed-refs").write_text(f"# pack-refs\n{'b' * 40} refs/heads/main\n")
        else:
            (git / "refs" / "heads" / "main").write_text("b" * 40 + "\n")
        assert git_commit(tmp_path) == "b" * 40


class OwnReward(Reward):
    def __call__(self, trajectories, **kwargs):
        return [0.0]


class TestDiff:
    def test_it_says_what_changed_in_words(self):
        def run(**options: Any) -> dict[str, Any]:
            with use_runtime(None):
                initialize(seed=options["seed"])
                loss = make_component("loss", options["loss"], gamma=options["gamma"])
                return plain(model={"adapter": {"r": options["r"]}}, components=[("loss", loss)])

        before = run(seed=1, loss="FocalLoss", gamma=1.0, r=8)
        changed = diff_runs(before, run(seed=2, loss="FocalLoss", gamma=2.0, r=16))
        assert list(map(str, changed)) == ["model adapter.r: 8 -> 16", "loss FocalLoss gamma: 1.0 -> 2.0", "seed: 1 -> 2"]
        [replaced] = diff_runs(before, run(seed=1, loss=OwnLoss, gamma=1.0, r=8))
        assert str(replaced) == "loss: FocalLoss (twinkle-plugin-focal 1.0.0) -> OwnLoss"

    def test_a_run_does_not_differ_from_itself(self):
        initialize(seed=1)
        assert diff_runs(plain(), plain()) == []

    def test_the_command_ends_with_1_where_something_changed(self):
        initialize(seed=1)
        write_checkpoint("a", model={"steps": 1})
        write_checkpoint("b", model={"steps": 2})
        different = cli("diff", "a", "b", "--json")
        assert different.exit_code == 1
        assert json.loads(different.stdout) == [
            {"subject": "model steps", "before": 1, "after": 2, "message": "model steps: 1 -> 2"}
        ]
        same = cli("diff", "a", "a")
        assert same.exit_code == 0
        assert "Nothing changed" in same.stdout


class TestVerify:
    @pytest.fixture
    def checkpoint(self) -> Path:
        initialize(seed=1)
        Path("rows.jsonl").write_text("{}\n")
        download_dataset("rows.jsonl")
        return write_checkpoint("saved", components=[("loss", make_component("loss", "FocalLoss"))])

    def test_nothing_differs_where_nothing_was_changed(self, checkpoint):
        assert verify_run(checkpoint) == []
        assert cli("verify", str(checkpoint)).exit_code == 0

    def test_a_changed_file_of_the_checkpoint_is_named(self, checkpoint):
        (checkpoint / "weights.bin").write_bytes(b"weighty")
        [found] = verify_run(checkpoint)
        assert "weights.bin" in str(found)

    def test_changed_code_of_a_plugin_is_named(self, checkpoint, site):
        [source] = site.glob("*/loss.py")
        source.write_text(source.read_text() + "# changed\n")
        [found] = verify_run(checkpoint)
        assert found.subject == "loss FocalLoss (twinkle-plugin-focal 1.0.0) code"

    def test_another_version_of_a_package_is_named(self, checkpoint, site):
        metadata = site / "twinkle_plugin_focal-1.0.0.dist-info" / "METADATA"
        metadata.write_text(metadata.read_text().replace("1.0.0", "1.1.0"))
        assert "package twinkle-plugin-focal: 1.0.0 -> 1.1.0" in map(str, verify_run(checkpoint))

    def test_a_changed_data_set_is_named_and_the_command_ends_with_1(self, checkpoint):
        Path("rows.jsonl").write_text("{} \n")
        result = cli("verify", str(checkpoint))
        assert result.exit_code == 1
        assert "dataset ./rows.jsonl digest: sha256:" in result.stdout

    def test_a_data_set_that_is_gone_is_named(self, checkpoint):
        Path("rows.jsonl").unlink()
        assert "there is nothing at rows.jsonl" in str(verify_run(checkpoint)[0])

    def test_a_hub_component_that_the_store_lost_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
        folder = tmp_path / "acme"
        folder.mkdir()
        (folder / "loss.py").write_text(LOSS.format(name="FocalLoss") + "# on a hub\n")
        (folder / "twinkle.toml").write_text(MANIFEST)
        checkpoint = write_checkpoint("saved", components=[("loss", make_component("loss", f"file://{folder}"))])
        assert verify_run(checkpoint) == []
        for stored in (tmp_path / "home" / "components" / "sha256").iterdir():
            stored.chmod(0o755)
            shutil.rmtree(stored)
        [found] = verify_run(checkpoint)
        assert found.subject == f"loss file://{folder}"

    def test_resuming_refuses_another_loss_and_says_which(self, checkpoint):
        now = plain(components=[("loss", make_component("loss", OwnLoss))])
        with pytest.raises(CheckpointError, match=r"loss: FocalLoss .* -> OwnLoss.*without verify"):
            check_resume(checkpoint, now)

    def test_resuming_takes_the_same_run(self, checkpoint):
        check_resume(checkpoint, plain(model={"steps": 0}, components=[("loss", make_component("loss", "FocalLoss"))]))


class TestReading:
    def test_a_folder_without_a_bill_says_so(self):
        Path("empty").mkdir()
        with pytest.raises(CheckpointError, match=f"has no {RUN_FILE}"):
            read_run(Path("empty"))

    def test_a_folder_that_is_not_there_says_so(self):
        with pytest.raises(CheckpointError, match="There is no checkpoint at gone"):
            read_run(Path("gone"))

    @pytest.mark.parametrize("content", ["{", "[]", '{"schema": 99}', '{"schema": 1}'])
    def test_a_bill_that_cannot_be_read_is_named(self, content):
        Path("bad").mkdir()
        Path("bad", RUN_FILE).write_text(content)
        with pytest.raises(CheckpointError, match=RUN_FILE):
            read_run(Path("bad"))

    def test_showing_tells_component_and_configuration(self):
        write_checkpoint("saved", components=[("loss", make_component("loss", "FocalLoss", gamma=4.0))])
        shown = cli("show", "saved")
        assert "FocalLoss (twinkle-plugin-focal 1.0.0) gamma=4.0" in shown.stdout
        assert json.loads(cli("show", "saved", "--json").stdout) == read_run(Path("saved"))
