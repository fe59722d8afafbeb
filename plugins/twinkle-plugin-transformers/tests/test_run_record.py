"""What a model's checkpoint tells of its run, and what plugins are told of steps and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twinkle.errors import CheckpointError
from twinkle.run_diff import diff_runs
from twinkle.run_record import RUN_FILE, read_run
from twinkle.run_verify import verify_run
from twinkle.runtime import current_runtime, use_runtime

HOOKS = """
import json
from pathlib import Path

def _note(*told):
    with Path({log!r}).open("a") as file:
        file.write(json.dumps(told) + "\\n")

def twinkle_step_end(step, measurements):
    _note("step", step, sorted(measurements))

def twinkle_checkpoint_save(folder, step):
    _note("checkpoint", step, sorted(path.name for path in folder.iterdir()))
    (folder / "added.txt").write_text("by a plugin")
"""

MANIFEST = """
schema = 1
[plugin]
name = "listener"
version = "1.0.0"
api = ">=1,<2"
license = "MIT"
summary = "made for a test"
hooks = { module = "hooks", names = ["twinkle_step_end", "twinkle_checkpoint_save"] }
"""


def step(model, make_rows) -> None:
    model.forward_backward(inputs=make_rows(3))
    model.clip_grad_and_step()


def components(folder: Path) -> dict[str, dict]:
    return {row["kind"]: row for row in read_run(folder)["components"]}


def test_a_checkpoint_names_the_model_the_adapter_and_what_trained_it(make_model, make_rows, tmp_path):
    model = make_model(lr=0.5)
    model.set_lr_scheduler("CosineWarmupScheduler", num_warmup_steps=2, num_training_steps=10)
    step(model, make_rows)
    folder = model.save("saved", output_dir=tmp_path)
    told = read_run(folder)["model"]
    assert (told["class"], told["adapter"]["r"], told["steps"]) == ("Qwen3ForCausalLM", 4, 1)
    assert told["config"]["hidden_size"] == 32  # random weights: the configuration is all there is
    found = components(folder)
    assert (found["optimizer"]["reference"], found["optimizer"]["config"]) == ("AdamW", {"lr": 0.5})
    assert found["lr_scheduler"]["config"] == {"num_training_steps": 10, "num_warmup_steps": 2}
    assert found["loss"]["reference"] == "CrossEntropyLoss"


def test_two_adapters_of_one_model_each_name_their_own_loss(make_model, lora, tmp_path):
    model = make_model()
    model.add_adapter_to_model("other", lora())
    model.set_loss(lambda inputs, outputs, **kwargs: None, adapter_name="other")
    mine = components(model.save("mine", output_dir=tmp_path, adapter_name="default", save_optimizer=False))
    theirs = components(model.save("theirs", output_dir=tmp_path, adapter_name="other", save_optimizer=False))
    assert mine["loss"]["reference"] == "CrossEntropyLoss"
    assert "<lambda>" in theirs["loss"]["source"]["entry"]
    assert "optimizer" not in theirs


def test_the_same_run_gives_the_same_bytes(make_model, make_rows, tmp_path):
    def run(name: str) -> bytes:
        with use_runtime(None):
            model = make_model()
            step(model, make_rows)
            return (model.save(name, output_dir=tmp_path) / RUN_FILE).read_bytes()

    assert run("a") == run("b")


def test_two_checkpoints_of_one_run_differ_in_their_steps_only(make_model, make_rows, tmp_path):
    model = make_model()
    folders = []
    for name in ("a", "b"):
        step(model, make_rows)
        folders.append(model.save(name, output_dir=tmp_path))
    assert list(map(str, diff_runs(*map(read_run, folders)))) == ["model steps: 1 -> 2"]


def test_a_checkpoint_verifies_where_it_was_written(make_model, tmp_path):
    assert verify_run(make_model().save("saved", output_dir=tmp_path)) == []


def test_resuming_with_verify_refuses_another_learning_rate_and_changes_nothing(make_model, make_rows, tmp_path):
    model = make_model(lr=0.5)
    step(model, make_rows)
    folder = model.save("saved", output_dir=tmp_path)
    make_model(lr=0.5).resume_from_checkpoint(folder, verify=True)
    other = make_model(lr=0.25)
    with pytest.raises(CheckpointError, match=r"optimizer AdamW lr: 0\.5 -> 0\.25"):
        other.resume_from_checkpoint(folder, verify=True)
    other.resume_from_checkpoint(folder)


def test_plugins_are_told_of_each_step_and_of_whole_checkpoints(make_model, make_rows, tmp_path, monkeypatch):
    package = tmp_path / "site" / f"listener_{abs(hash(tmp_path))}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "hooks.py").write_text(HOOKS.format(log=str(tmp_path / "log.jsonl")))
    (package / "twinkle.toml").write_text(MANIFEST)
    info = package.parent / "listener-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: listener\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[twinkle.plugins]\nlistener = {package.name}\n")
    monkeypatch.syspath_prepend(str(package.parent))
    model = make_model(accumulation=2)
    for _ in range(4):
        step(model, make_rows)
    folder = model.save("saved", output_dir=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[:2] == [["step", 1, ["grad_norm", "lr"]], ["step", 2, ["grad_norm", "lr"]]]
    assert lines[2][:2] == ["checkpoint", 2]
    assert {"adapter_model.safetensors", "twinkle_checkpoint.json", RUN_FILE} <= set(lines[2][2])
    assert verify_run(folder) == []  # what a plugin adds isn't the checkpoint's
    assert current_runtime().hooks.wanted == {"twinkle_step_end", "twinkle_checkpoint_save"}
