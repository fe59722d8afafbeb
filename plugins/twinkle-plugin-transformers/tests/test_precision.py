"""Which number formats a precision means."""

from __future__ import annotations

import math

import pytest
import torch

from twinkle_plugin_transformers.precision import LossScale, Precision


@pytest.mark.parametrize(
    ("name", "device", "weights", "autocast"),
    [
        ("bf16", "cpu", torch.float32, None),
        ("no", "cpu", torch.float32, None),
        ("no", "cuda", torch.float32, None),
        ("bf16", "cuda", torch.bfloat16, torch.bfloat16),
        ("fp16", "npu", torch.float16, torch.float16),
    ],
)
def test_formats_by_device(name, device, weights, autocast):
    chosen = Precision.choose(name, device)
    assert (chosen.weights, chosen.autocast) == (weights, autocast)


def test_a_format_of_weights_that_was_asked_for_is_taken(make_model, make_rows):
    model = make_model(dtype=torch.bfloat16)
    assert model.model.get_output_embeddings().weight.dtype == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in model.model.parameters() if value.requires_grad)
    reference = float(make_model().forward_backward(inputs=make_rows(4))["loss"])
    assert float(model.forward_backward(inputs=make_rows(4))["loss"]) == pytest.approx(reference, rel=2e-2)
    assert model.clip_grad_and_step() > 0


def test_autocast_trains_an_adapter_and_full_weights_in_float32(make_model, make_rows, config):
    """What happens on an accelerator, on the CPU's own autocast."""
    for adapter in (True, False):
        model = make_model(adapter=adapter, dtype=torch.bfloat16)
        model._precision = model._passes.precision = Precision("cpu", torch.bfloat16, torch.bfloat16)
        model._passes.forget_model()
        model.set_optimizer("AdamW", lr=1e-2)
        assert all(value.dtype == torch.float32 for value in model.model.parameters() if value.requires_grad)
        losses = []
        for _ in range(8):
            losses.append(float(model.forward_backward(inputs=make_rows(4))["loss"]))
            model.clip_grad_and_step()
        assert losses[-1] < losses[0] - 0.1


def test_only_float16_has_a_loss_scale():
    assert Precision.choose("bf16", "cuda").loss_scale({}) is None
    scale = Precision.choose("fp16", "cuda").loss_scale({"init_scale": 8.0, "growth_interval": 2})
    assert scale is not None
    assert scale.scale == 8.0


def test_a_loss_scale_backs_off_and_grows():
    scale = LossScale(init_scale=8.0, growth_interval=2)
    scale.update(finite=False)
    assert scale.scale == 4.0
    scale.update(finite=True)
    scale.update(finite=True)
    assert scale.scale == 8.0


def test_a_loss_scale_changes_no_step(make_model, make_rows):
    plain, scaled = make_model(), make_model()
    scaled._states.find("").loss_scale = LossScale(init_scale=1024.0)
    for model in (plain, scaled):
        model.forward_backward(inputs=make_rows(2))
    assert scaled.clip_grad_and_step() == pytest.approx(plain.clip_grad_and_step(), rel=1e-5)
    scaled.set_loss(lambda inputs, outputs: {"loss": outputs["logps"].sum() * math.inf, "num_tokens": 1.0})
    scaled.forward_backward(inputs=make_rows(2))
    scaled.clip_grad_and_step()
    assert scaled._states.find("").loss_scale.scale == 512.0
