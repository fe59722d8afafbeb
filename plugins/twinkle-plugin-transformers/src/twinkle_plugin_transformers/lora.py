"""LoRA linear layers whose base product and low-rank product are one autograd function.

PEFT's own layer makes four intermediate tensors of the output's size (product, scaled product, sum, and the scaled gradient);
this one makes none beside the output, and never computes a gradient for the frozen base weight. Where a layer does more than
plain LoRA (DoRA and other variants, dropout, several adapters, merged weights, a quantised base, hooks) PEFT's own forward runs.
Leans on PEFT for injection, state and everything else about its layers; knows nothing of models.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn


class _LoraProduct(torch.autograd.Function):
    """``x W^T + bias + scaling (x A^T) B^T`` with ``W`` and ``bias`` frozen (LoRA, arXiv:2106.09685)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        """``x [..., in]``, ``weight [out, in]``, ``a [rank, in]``, ``b [out, rank]`` → ``[..., out]``."""
        rows = x.reshape(-1, x.shape[-1])
        low = torch.mm(rows, a.t())
        out = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())
        out.addmm_(low, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, weight, a, b = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        grad_low = torch.mm(grad, b).mul_(ctx.scaling)
        grad_a = torch.mm(grad_low.t(), rows) if ctx.needs_input_grad[3] else None
        # The scale goes onto the low-rank factor, which is smaller than the gradient.
        grad_b = torch.mm(grad.t(), low * ctx.scaling) if ctx.needs_input_grad[4] else None
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(grad, weight).addmm_(grad_low, a).view(*grads[0].shape[:-1], weight.shape[1])
        return grad_x, None, None, grad_a, grad_b, None


class FusedLoraLinear(LoraLinear):
    """PEFT's LoRA layer over ``nn.Linear`` with the fused product; the same parameters, the same state, the same results."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [..., in]`` → ``[..., out]``; what isn't plain LoRA goes to PEFT's own forward."""
        adapter = None if args or kwargs else self._plain_adapter()
        if adapter is None:
            out: Tensor = super().forward(x, *args, **kwargs)
            return out
        base = self.base_layer
        a, b = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if x.dtype != base.weight.dtype:
            out = super().forward(x)
            return out
        # Where the base is in bfloat16 and the adapter in float32, the product is in bfloat16 as under autocast, and the
        # adapter's gradient comes back in float32 through the cast.
        result: Tensor = _LoraProduct.apply(x, base.weight, base.bias, a.to(x.dtype), b.to(x.dtype), self.scaling[adapter])
        return result

    def _plain_adapter(self) -> str | None:
        """The one active adapter, where all that it does is plain LoRA over a frozen linear layer; else None."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        adapter: str = self.active_adapters[0]
        if adapter not in self.lora_A or adapter in self.lora_variant or self.lora_bias.get(adapter):
            return None
        base = self.base_layer
        if type(base) is not nn.Linear or base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
            return None
        if any(_has_hooks(part) for part in (base, self.lora_A[adapter], self.lora_B[adapter])):
            return None
        dropout = self.lora_dropout[adapter]
        if not isinstance(dropout, nn.Identity) and dropout.training and dropout.p > 0:
            return None
        return adapter


def _has_hooks(module: nn.Module) -> bool:
    """Whether somebody hooked on to a layer, whom the fused product would pass over."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def fuse_lora_layers(module: nn.Module) -> int:
    """Give every plain LoRA linear layer under ``module`` the fused product; returns how many there are.

    Only the class changes (it adds no state), so PEFT goes on seeing its own layers.
    """
    fused = 0
    for layer in module.modules():
        if type(layer) is LoraLinear and type(layer.base_layer) is nn.Linear:
            layer.__class__ = FusedLoraLinear
        fused += isinstance(layer, FusedLoraLinear)
    return fused
