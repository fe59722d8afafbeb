"""The loss and gradient of each architecture are those of Transformers' own."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, Gemma2Config

from twinkle.model import TransformersModel
from twinkle_plugin_transformers.outputs import head_splits

NAMES = ["tiny-qwen2", "tiny-qwen3", "tiny-llama", "tiny-qwen3-moe", "tiny-deepseek-v3", "tiny-qwen3_5-text"]


def check(model: TransformersModel, rows) -> None:
    """Against ``model(labels=…).loss`` on one row after the other, so that padding plays no part on that side."""
    model.set_optimizer("SGD", lr=0.0)
    output = model.forward_backward(inputs=rows)
    ours = {name: value.grad.clone() for name, value in model.model.named_parameters() if value.grad is not None}
    tokens = sum(int((torch.tensor(row["labels"][1:]) != -100).sum()) for row in rows)
    model.model.zero_grad()
    total = torch.zeros(())
    for row in rows:
        labels = torch.tensor([row["labels"]])
        total = total + model.model(torch.tensor([row["input_ids"]]), labels=labels, use_cache=False).loss * int(
            (labels[:, 1:] != -100).sum()
        )
    total.backward()
    assert float(output["loss"]) == pytest.approx(float(total.detach()) / tokens, rel=1e-5)
    for name, value in model.model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(
                ours[name], value.grad, rtol=1e-3, atol=1e-4 * float(value.grad.abs().max() + 1e-3), msg=name
            )


@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_are_transformers_own(shared, make_rows, lora, name, adapter):
    config = AutoConfig.from_pretrained(shared(f"models/configs/{name}"))
    model = TransformersModel(config=config)
    if adapter:
        model.add_adapter_to_model("default", lora(init_lora_weights=False, target_modules=["q_proj", "o_proj", "down_proj"]))
    assert head_splits(model.model)
    check(model, make_rows(3, prompt=2))


@pytest.fixture
def capped() -> Gemma2Config:
    return Gemma2Config(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=30.0,
        attn_implementation="eager",
    )


def test_a_head_with_a_soft_cap_is_not_split(capped, make_rows, lora):
    model = TransformersModel(config=capped)
    model.add_adapter_to_model("default", lora(init_lora_weights=False))
    assert not head_splits(model.model)
    check(model, make_rows(2))


def test_a_head_that_is_adapted_itself_is_trained(config, make_rows, lora):
    config.tie_word_embeddings = False
    model = TransformersModel(config=config)
    model.add_adapter_to_model("default", lora(init_lora_weights=False, target_modules=["q_proj", "lm_head"]))
    check(model, make_rows(2))
    assert any("lm_head" in name for name in model.get_state_dict())


def test_a_packed_row_is_trained_as_its_sequences_are(make_model, make_rows):
    rows = make_rows(3)
    padded, packed = make_model(), make_model()
    packed.set_processor("InputProcessor", padding_free=True)
    assert float(packed.forward_backward(inputs=rows)["loss"]) == pytest.approx(
        float(padded.forward_backward(inputs=rows)["loss"]), rel=1e-5
    )
    assert packed.clip_grad_and_step() == pytest.approx(padded.clip_grad_and_step(), rel=1e-4)
