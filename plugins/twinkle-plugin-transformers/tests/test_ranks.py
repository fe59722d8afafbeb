"""Two processes give what one process gives with the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from twinkle.testing.processes import run_ranks

PRELOAD = ("torch", "peft", "transformers.models.qwen3.modeling_qwen3", "twinkle_plugin_transformers.model")
OPTIONS = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": None,
}


def train(batches: list[list[dict[str, Any]]], adapter: bool, folder: str) -> dict[str, Any]:
    """What a rank does: its slice of every batch, accumulated over two; ranks begin with different random states."""
    from peft import LoraConfig
    from transformers import Qwen3Config

    from twinkle.model import TransformersModel
    from twinkle.runtime import current_runtime

    runtime = current_runtime()
    torch.manual_seed(runtime.rank)
    model = TransformersModel(config=Qwen3Config(**OPTIONS))
    if adapter:
        model.add_adapter_to_model("default", LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    model.set_optimizer("AdamW", lr=1e-2)
    model.set_lr_scheduler("CosineWarmupScheduler", num_warmup_steps=1, num_training_steps=10)
    losses, norms = [], []
    for rows in batches:
        mine = rows[runtime.device_mesh.get_slice(len(rows), runtime.rank)]
        model.forward_backward(inputs=mine)
        norms.append(model.clip_grad_and_step(gradient_accumulation_steps=2))
        losses.append(float(model.calculate_metric(is_training=True)["loss"]))
    if adapter:  # the last batch has one row: the second rank has none, and waits for nobody
        model.forward_backward(inputs=batches[0][:1][runtime.device_mesh.get_slice(1, runtime.rank)])
        norms.append(model.clip_grad_and_step(gradient_accumulation_steps=1))
        losses.append(float(model.calculate_metric(is_training=True)["loss"]))
    path = model.save("ranks", output_dir=folder)
    model.resume_from_checkpoint(path)
    return {
        "losses": losses,
        "norms": [norm for norm in norms if norm is not None],
        "weights": {name: value.numpy() for name, value in model.get_state_dict().items()},
        "random": torch.get_rng_state().numpy(),
    }


def interrupt(batches: list[list[dict[str, Any]]], folder: str) -> tuple[list[float], list[float]]:
    """The losses of a rank after a checkpoint, gone on from and resumed, with dropout."""
    from peft import LoraConfig
    from transformers import Qwen3Config

    from twinkle.model import TransformersModel
    from twinkle.runtime import current_runtime

    runtime = current_runtime()

    def build() -> TransformersModel:
        torch.manual_seed(runtime.rank)
        model = TransformersModel(config=Qwen3Config(**OPTIONS))
        model.add_adapter_to_model("default", LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.4))
        model.set_optimizer("AdamW", lr=1e-2)
        return model

    def train_on(model: TransformersModel) -> list[float]:
        losses = []
        for rows in batches:
            output = model.forward_backward(inputs=rows[runtime.device_mesh.get_slice(len(rows), runtime.rank)])
            losses.append(float(output["loss"]))
            model.clip_grad_and_step()
        return losses

    straight = build()
    train_on(straight)
    path = straight.save("middle", output_dir=folder)
    rest = train_on(straight)
    resumed = build()
    resumed.resume_from_checkpoint(path)
    return rest, train_on(resumed)


def test_every_rank_goes_on_exactly_where_it_stopped(make_rows, tmp_path):
    (rest, again), (other_rest, other_again) = run_ranks(
        interrupt, 2, [make_rows(4, seed=seed) for seed in range(3)], str(tmp_path), preload=PRELOAD
    )
    assert (rest, other_rest) == (again, other_again)
    assert rest != other_rest


def fail_to_save(folder: str) -> str:
    from transformers import Qwen3Config

    from twinkle.errors import CheckpointError
    from twinkle.model import TransformersModel

    model = TransformersModel(config=Qwen3Config(**OPTIONS))
    try:
        model.save("ranks", output_dir=folder)
    except CheckpointError as error:
        return str(error)
    return "saved"


def train_separately(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a rank does with one row for all ranks, by separate calls, evaluated before."""
    from peft import LoraConfig
    from transformers import Qwen3Config

    from twinkle.model import TransformersModel
    from twinkle.runtime import current_runtime

    runtime = current_runtime()
    model = TransformersModel(config=Qwen3Config(**OPTIONS))
    model.add_adapter_to_model("default", LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    model.set_optimizer("AdamW", lr=1e-2)
    mine = rows[runtime.device_mesh.get_slice(len(rows), runtime.rank)]
    model.forward_only(inputs=mine)
    model.calculate_loss()
    evaluated = float(model.calculate_metric(is_training=False)["loss"])
    model.forward(inputs=mine)
    model.calculate_loss()
    model.backward()
    return {"evaluated": evaluated, "norm": model.clip_grad_and_step(), "rows": len(mine)}


def test_a_rank_without_rows_takes_part_in_separate_calls_too(make_rows):
    rows = make_rows(1)
    (one,) = run_ranks(train_separately, 1, rows, preload=PRELOAD)
    first, second = run_ranks(train_separately, 2, rows, preload=PRELOAD)
    assert (first["rows"], second["rows"]) == (1, 0)
    for name in ("evaluated", "norm"):
        assert first[name] == second[name] == pytest.approx(one[name], rel=1e-5)


@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
def test_two_ranks_train_as_one_process_does(make_rows, tmp_path, adapter):
    batches = [make_rows(5, seed=seed) for seed in range(6)]  # five rows: the ranks have three and two
    one = run_ranks(train, 1, batches, adapter, str(tmp_path / "one"), preload=PRELOAD)[0]
    first, second = run_ranks(train, 2, batches, adapter, str(tmp_path / "two"), preload=PRELOAD)
    assert first["losses"] == second["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert first["norms"] == second["norms"] == pytest.approx(one["norms"], rel=1e-4)
    for name, value in one["weights"].items():
        assert (first["weights"][name] == second["weights"][name]).all()
        assert first["weights"][name] == pytest.approx(value, abs=1e-5)
    assert (first["random"] != second["random"]).any()


def test_a_save_that_fails_on_the_master_fails_on_every_rank(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    told = run_ranks(fail_to_save, 2, str(tmp_path / "file"), preload=PRELOAD)
    assert told[0] == told[1]
    assert "can't be written" in told[0]
