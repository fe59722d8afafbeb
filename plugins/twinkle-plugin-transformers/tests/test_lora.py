"""The fused LoRA layer is PEFT's layer."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from twinkle_plugin_transformers.lora import FusedLoraLinear, fuse_lora_layers


def layers(bias: bool = True, **options) -> tuple[LoraLinear, FusedLoraLinear]:
    """PEFT's own layer and a fused copy, with weights that aren't zero."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 40, bias=bias))
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": ["0"], "init_lora_weights": False, **options})
    plain = get_peft_model(net, config).base_model.model[0]
    fused = copy.deepcopy(plain)
    holder = nn.Sequential(fused)
    assert fuse_lora_layers(holder) == 1
    return plain, holder[0]


def run(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients of the input and all trained parameters."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    out = layer(x)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(value.grad for value in layer.parameters() if value.requires_grad)]


OPTIONS = [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_dropout": 0.5}]


@pytest.mark.parametrize(
    ("bias", "options"),
    [*((bias, options) for bias in (True, False) for options in OPTIONS), (True, {"lora_bias": True})],  # which needs a bias
    ids=str,
)
@pytest.mark.parametrize("shape", [(24,), (7, 24), (3, 5, 24)])
def test_output_and_gradients_equal_pefts(bias, shape, options):
    plain, fused = layers(bias, **options)
    x = torch.randn(*shape)
    for ours, theirs in zip(run(fused, x), run(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * float(theirs.abs().max()))


def test_gradient_is_right_in_float64():
    _, fused = layers()
    fused.double()
    x = torch.randn(3, 24, dtype=torch.float64, requires_grad=True)
    a, b = fused.lora_A["default"].weight, fused.lora_B["default"].weight
    assert torch.autograd.gradcheck(lambda *_: fused(x), (x, a, b))


def test_the_frozen_base_gets_no_gradient():
    _, fused = layers()
    fused(torch.randn(5, 24)).sum().backward()
    assert fused.base_layer.weight.grad is None


@pytest.mark.parametrize("change", ["disable", "merge", "two adapters", "eval dropout"])
def test_other_states_of_a_layer_equal_pefts(change):
    plain, fused = layers(**({"lora_dropout": 0.3} if change == "eval dropout" else {}))
    for layer in (plain, fused):
        if change == "disable":
            layer.enable_adapters(False)
        elif change == "merge":
            layer.merge()
        elif change == "eval dropout":
            layer.eval()
        else:
            torch.manual_seed(3)
            layer.update_layer("other", 2, lora_alpha=4, config=LoraConfig(r=2, lora_alpha=4, init_lora_weights=False))
            layer.set_adapter(["default", "other"])
    x = torch.randn(5, 24)
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-6, atol=1e-6)


def test_a_bfloat16_base_with_a_float32_adapter_stays_close_to_peft():
    plain, fused = layers()
    for layer in (plain, fused):
        layer.base_layer.to(torch.bfloat16)
    x = torch.randn(5, 24).bfloat16()
    ours, theirs = run(fused, x), run(plain, x)
    assert [value.dtype for value in ours] == [value.dtype for value in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=3e-2, atol=3e-2 * float(other.abs().max()))


def test_a_trained_base_layer_is_left_to_peft():
    _, fused = layers()
    fused.base_layer.weight.requires_grad_(True)
    fused(torch.randn(5, 24)).sum().backward()
    assert fused.base_layer.weight.grad is not None


@pytest.mark.parametrize("part", ["base_layer", "lora_A"])
def test_hooks_on_a_layers_parts_are_called(part):
    _, fused = layers()
    module = fused.base_layer if part == "base_layer" else fused.lora_A["default"]
    called = []
    module.register_forward_hook(lambda *_: called.append(part))
    fused(torch.randn(5, 24))
    assert called == [part]
