"""Checkpoints: whole or not at all, exact, and readable by other tools."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, Qwen3Config

from twinkle.errors import CheckpointError, ConfigError
from twinkle.model import TransformersModel
from twinkle_plugin_transformers.checkpoint_folder import write_folder


def train(model, make_rows, steps: range) -> list[float]:
    losses = []
    for step in steps:
        losses.append(float(model.forward_backward(inputs=make_rows(3, seed=step))["loss"]))
        model.clip_grad_and_step()
    return losses


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.get_state_dict().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture
def build(make_model, config, lora):
    def make(adapter: bool, dropout: float = 0.3) -> TransformersModel:
        """A model with dropout, so that the random state matters."""
        config.attention_dropout = dropout
        model = TransformersModel(config=config)
        if adapter:
            model.add_adapter_to_model("default", lora(lora_dropout=dropout), gradient_accumulation_steps=2)
        model.set_optimizer("AdamW", lr=1e-2)
        model.set_lr_scheduler("CosineWarmupScheduler", num_warmup_steps=2, num_training_steps=10)
        return model

    return make


@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
def test_resuming_is_bitwise_the_same_as_no_interruption(build, make_rows, tmp_path, adapter):
    torch.manual_seed(7)
    straight = build(adapter)
    train(straight, make_rows, range(4))
    folder = straight.save("middle", output_dir=tmp_path, data_state={"consumed_train_samples": 12, "epoch": 0})
    rest = train(straight, make_rows, range(4, 8))

    torch.manual_seed(99)
    resumed = build(adapter)
    train(resumed, make_rows, range(1))
    assert resumed.resume_from_checkpoint(folder) == {"consumed_train_samples": 12, "epoch": 0}
    assert train(resumed, make_rows, range(4, 8)) == rest
    assert same(weights(resumed), weights(straight))
    assert resumed.calculate_metric(is_training=True)["step"] == straight.calculate_metric(is_training=True)["step"]


def test_an_adapter_is_read_by_plain_peft(make_model, make_rows, config, tmp_path):
    model = make_model()
    train(model, make_rows, range(2))
    model.save("adapter", output_dir=tmp_path)
    base = make_model(adapter=False).model
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    rows = make_rows(1)
    ours = model.forward_only(inputs=rows, outputs=["logits"])["logits"]
    torch.testing.assert_close(loaded(torch.tensor([rows[0]["input_ids"]])).logits, ours, rtol=1e-5, atol=1e-5)


def test_a_full_model_is_read_by_transformers(make_model, make_rows, tmp_path):
    model = make_model(adapter=False)
    train(model, make_rows, range(2))
    folder = model.save("full", output_dir=tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert same({name: value.detach() for name, value in loaded.state_dict().items()}, weights(model))


def test_a_saved_adapter_can_be_added_to_another_model(make_model, make_rows, tmp_path):
    model = make_model()
    train(model, make_rows, range(2))
    folder = model.save("adapter", output_dir=tmp_path)
    other = make_model()
    other.add_adapter_to_model("again", folder)
    assert same(other.get_state_dict(adapter_name="again"), weights(model))
    other.set_optimizer("AdamW", lr=1e-2, adapter_name="again")
    other.forward_backward(inputs=make_rows(2), adapter_name="again")
    assert other.clip_grad_and_step(adapter_name="again") > 0


def test_load_takes_weights_and_leaves_the_optimizer(make_model, make_rows, tmp_path):
    model = make_model()
    train(model, make_rows, range(2))
    model.save("adapter", output_dir=tmp_path, save_optimizer=False)
    saved = weights(model)
    train(model, make_rows, range(2, 4))
    model.load("adapter", output_dir=tmp_path)
    assert same(weights(model), saved)


def test_a_checkpoint_holds_no_pickle(make_model, make_rows, tmp_path):
    model = make_model()
    train(model, make_rows, range(1))
    folder = model.save("adapter", output_dir=tmp_path)
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".md"}


@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
def test_a_damaged_checkpoint_is_refused_by_file_and_changes_nothing(make_model, make_rows, tmp_path, adapter, damage):
    model = make_model(adapter=adapter)
    train(model, make_rows, range(1))
    folder = model.save("cut", output_dir=tmp_path)
    train(model, make_rows, range(1, 3))
    before, random_before = weights(model), torch.get_rng_state()
    for name in json.loads((folder / "twinkle_checkpoint.json").read_text())["files"]:
        path = folder / name
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "short":
            path.write_bytes(content[:-1])
        else:
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(CheckpointError, match=name):
            model.resume_from_checkpoint(folder)
        path.write_bytes(content)
    assert same(weights(model), before)
    assert torch.equal(torch.get_rng_state(), random_before)
    model.resume_from_checkpoint(folder)


def test_a_folder_without_its_index_was_cut_short(make_model, tmp_path):
    model = make_model()
    folder = model.save("cut", output_dir=tmp_path)
    (folder / "twinkle_checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match=r"twinkle_checkpoint\.json"):
        model.resume_from_checkpoint(folder)


def test_an_interrupted_save_leaves_the_old_checkpoint(make_model, make_rows, tmp_path, monkeypatch):
    model = make_model()
    folder = model.save("last", output_dir=tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    train(model, make_rows, range(1))

    def full_disk(path, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(CheckpointError, match="last"):
        model.save("last", output_dir=tmp_path)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_saving_again_replaces_the_checkpoint(make_model, make_rows, tmp_path):
    model = make_model()
    model.save("last", output_dir=tmp_path)
    train(model, make_rows, range(1))
    folder = model.save("last", output_dir=tmp_path)
    other = make_model()
    other.resume_from_checkpoint(folder)
    assert same(weights(other), weights(model))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_another_models_checkpoint_is_refused(make_model, lora, tmp_path):
    folder = make_model().save("adapter", output_dir=tmp_path)
    other = make_model(adapter=False)
    with pytest.raises(CheckpointError, match="adapter"):
        other.resume_from_checkpoint(folder)
    other = make_model()
    other.add_adapter_to_model("wide", lora(r=8))
    other.set_optimizer("AdamW", adapter_name="wide")
    with pytest.raises(CheckpointError, match=r"instead of \[8, "):
        other.resume_from_checkpoint(folder, adapter_name="wide")


def test_another_optimizer_is_refused(make_model, make_rows, tmp_path):
    model = make_model()
    train(model, make_rows, range(1))
    folder = model.save("adapter", output_dir=tmp_path)
    model.set_optimizer("SGD", lr=0.1)
    with pytest.raises(CheckpointError, match=r"AdamW.*SGD"):
        model.resume_from_checkpoint(folder)


def test_an_optimizer_whose_state_needs_pickles_is_refused(make_model, make_rows, tmp_path):
    model = make_model()
    model.set_optimizer("LBFGS", line_search_fn=None)
    model._states.find("").optimizer.state[model._states.find("").parameters[0]] = {"old": object()}
    with pytest.raises(CheckpointError, match=r"LBFGS.*save_optimizer=False"):
        model.save("adapter", output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "../up", "a/b", "/abs", ".hidden"])
def test_a_checkpoints_name_is_one_folder_name(make_model, tmp_path, name):
    with pytest.raises(ConfigError, match="plain folder name"):
        make_model().save(name, output_dir=tmp_path)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [("SGD", {"momentum": 0.9}), ("Adafactor", {}), ("NAdam", {}), ("ASGD", {})],
    ids=["SGD", "Adafactor", "NAdam", "ASGD"],
)
def test_any_optimizer_and_schedule_go_on_where_they_stopped(make_model, make_rows, tmp_path, optimizer, options):
    def build():
        model = make_model()
        model.set_optimizer(optimizer, lr=1e-2, **options)
        model.set_lr_scheduler("MultiStepLR", milestones=[3, 5], gamma=0.1)  # keeps a mapping from numbers
        return model

    straight, resumed = build(), build()
    train(straight, make_rows, range(2))
    folder = straight.save("middle", output_dir=tmp_path)
    resumed.resume_from_checkpoint(folder)
    assert train(resumed, make_rows, range(2, 8)) == train(straight, make_rows, range(2, 8))
    assert same(weights(resumed), weights(straight))


@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"tie_word_embeddings": False}], ids=str)
def test_another_configurations_full_checkpoint_is_refused(make_model, config, tmp_path, change):
    theirs = Qwen3Config(**{**config.to_dict(), "layer_types": None, **change})
    folder = TransformersModel(config=theirs).save("other", output_dir=tmp_path)
    model = make_model(adapter=False)
    before = weights(model)
    with pytest.raises(CheckpointError, match=r"doesn't fit this model: .*(layers|lm_head)"):
        model.load(folder)
    assert same(weights(model), before)


def test_a_damaged_adapter_is_not_added(make_model, lora, tmp_path):
    folder = make_model().save("adapter", output_dir=tmp_path)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        make_model().add_adapter_to_model("again", folder)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("whole", [True, False], ids=["new is whole", "new is damaged"])
@pytest.mark.parametrize("then", ["resume", "load", "save"])
def test_a_process_that_ends_between_the_two_renames_loses_nothing(make_model, make_rows, tmp_path, monkeypatch, whole, then):
    model = make_model()
    train(model, make_rows, range(1))
    folder = model.save("last", output_dir=tmp_path)
    old = weights(model)
    train(model, make_rows, range(1, 2))
    new = weights(model)
    rename = Path.rename

    def killed(path, target):
        if path.suffix == ".new":
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        patched.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            model.save("last", output_dir=tmp_path)
    assert not folder.exists()
    (aside,) = tmp_path.glob(".last.*.new")
    if not whole:
        (aside / "adapter_model.safetensors").write_bytes(b"")
    other = make_model()
    if then == "save":
        other.save("last", output_dir=tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["last"]
        return
    if then == "resume":
        other.resume_from_checkpoint(folder)
    else:
        other.load("last", output_dir=tmp_path)
    assert same(weights(other), new if whole else old)
    other.save("last", output_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_writer_at_work_is_left_alone(make_model, tmp_path):
    model = make_model()

    def meanwhile(folder: Path) -> None:
        model.save("last", output_dir=tmp_path)
        (folder / "mine").write_text("still here")

    write_folder(tmp_path / "last", meanwhile)
    assert (tmp_path / "last" / "mine").read_text() == "still here"


def test_a_checkpoint_that_is_not_there_is_named(make_model, tmp_path):
    for name, options in ((tmp_path / "gone", {}), ("gone", {"output_dir": tmp_path})):
        with pytest.raises(CheckpointError, match=r"no checkpoint at .*gone"):
            make_model().load(name, **options)
