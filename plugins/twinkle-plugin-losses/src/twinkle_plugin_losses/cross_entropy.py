"""Cross entropy on the next token.

Turns log-probabilities of labels, or logits, into the loss of supervised fine-tuning and pre-training. Decides what counts as
trained on (labels and weights) and what the step is a mean over (``reduction``). Leans on ``token_logps`` for the way from logits
and on ``sequences`` for where a sequence ends; knows nothing of models, devices or ranks. All tensors are ``[B, T]`` where no
other shape is given.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from twinkle.data_format import IGNORE_INDEX, Batch, LossOutput, ModelOutput
from twinkle.errors import ConfigError
from twinkle.loss import Loss
from twinkle_plugin_losses.inputs import check_shape, refuse_unknown, require
from twinkle_plugin_losses.sequences import sequence_index
from twinkle_plugin_losses.token_logps import token_logps

Reduction = Literal["token_mean", "sequence_mean", "sum"]


class CrossEntropyLoss(Loss):
    """``-log p(label)`` over the labelled tokens.

    With the token's negative log-likelihood ``nll`` and its weight ``w`` (``inputs["loss_weights"]``, 1 where there are none):

    - ``label_smoothing = ε``: ``nll`` becomes ``(1-ε)·nll - ε·mean_logps``, PyTorch's definition (``mean_logps`` is the mean over
      the vocabulary of the log-probabilities; entries that are masked with ``-inf`` take no part in it).
    - ``dft``: the token's loss is multiplied by its probability, through which no gradient flows (Dynamic Fine-Tuning,
      arXiv:2508.05629).
    - ``reduction``: what the optimizer's step is. ``token_mean``: ``Σ w·nll`` over the number of trained tokens.
      ``sequence_mean``: each sequence's token mean counts 1, however long it is, in packed rows too. ``sum``: ``Σ w·nll``, not
      normalised.

    A token is trained on where it has a label and its weight isn't 0: a weight of 0 is the same as no label. Weights scale a
    token's loss and never the number that it is divided by. So the loss is linear in the weights: a weight of 0.5 halves a token's
    gradient (also where every token has it), and negative weights push a token's probability down. Dividing by ``Σ w`` would
    cancel constant weights, and turn the sign or blow up where negative weights outweigh the others. With ``sum`` this is the
    ``cross_entropy`` of the Tinker protocol, ``-Σ w·logp``, of which any custom loss is a special case (``w = -dL/dlogp``).

    Reads ``outputs["logps"]`` (and ``"mean_logps"`` with label smoothing), or ``outputs["logits"]`` (``[B, T, V]``, any strides)
    where those aren't given. What stands at positions that aren't trained on is never read. Computed in float32, or in float64
    where the outputs are. A batch without a trained token gives a loss of 0 with zero gradients. A label of probability 0 gives
    ``inf``, as it should, with finite gradients with respect to logits.

    ``metrics`` of the output are ``nll``, the plain unweighted sum of ``-log p`` over the trained tokens, and ``nll_tokens``, their
    number: what a perplexity is computed from.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(self, label_smoothing: float = 0.0, dft: bool = False, reduction: Reduction = "token_mean") -> None:
        if isinstance(label_smoothing, bool) or not isinstance(label_smoothing, (int, float)) or not 0.0 <= label_smoothing <= 1.0:
            raise ConfigError(f"CrossEntropyLoss: label_smoothing is {label_smoothing!r}, but has to be a number from 0 to 1.")
        if not isinstance(dft, bool):
            raise ConfigError(f"CrossEntropyLoss: dft is {dft!r}, but has to be True or False.")
        if reduction not in get_args(Reduction):
            choices = ", ".join(map(repr, get_args(Reduction)))
            raise ConfigError(f"CrossEntropyLoss has no reduction {reduction!r}. Choose one of {choices}.")
        self.label_smoothing = float(label_smoothing)
        self.dft = dft
        self.reduction: Reduction = reduction
        self.require_mean_logps = self.label_smoothing > 0

    def __call__(self, inputs: Batch, outputs: ModelOutput, **kwargs: Any) -> LossOutput:
        """Return the loss of this (micro-)batch; see ``Loss``. Takes no keywords.

        Raises:
            ValueError: ``labels``, or both ``logps`` and ``logits``, are missing; a shape doesn't fit; an unknown keyword.
        """
        refuse_unknown(self, kwargs)
        labels = require(self, inputs, "labels", "inputs")
        weights = inputs.get("loss_weights")
        trained = labels != IGNORE_INDEX
        if weights is not None:
            check_shape(self, "loss_weights", weights, labels)
            trained = trained & (weights != 0)

        nll, smoothed = self._token_losses(outputs, labels, trained)
        losses = _times_probability(smoothed, nll) if self.dft else smoothed
        if weights is not None:
            losses = losses * torch.where(trained, weights, 0).to(losses)
        loss, num_tokens = self._reduce(losses, trained, inputs)
        plain = nll.detach().sum()
        return LossOutput(loss=loss, num_tokens=num_tokens, metrics={"nll": plain, "nll_tokens": trained.sum().to(plain)})

    def _token_losses(self, outputs: ModelOutput, labels: Tensor, trained: Tensor) -> tuple[Tensor, Tensor]:
        """``(nll, smoothed)``, 0 where nothing is trained; the same tensor without label smoothing."""
        logps, mean_logps = self._logps(outputs, labels, trained)
        nll = -torch.where(trained, logps, 0.0)
        if mean_logps is None:
            return nll, nll
        return nll, (1 - self.label_smoothing) * nll - self.label_smoothing * torch.where(trained, mean_logps, 0.0)

    def _logps(self, outputs: ModelOutput, labels: Tensor, trained: Tensor) -> tuple[Tensor, Tensor | None]:
        """The label's log-probability and, with label smoothing, the vocabulary's mean: as given, or from logits."""
        wanted = ("logps", "mean_logps") if self.require_mean_logps else ("logps",)
        given = {name: outputs.get(name) for name in wanted}
        missing = [name for name, value in given.items() if value is None]
        if missing:
            logits = require(self, outputs, "logits", "outputs", instead_of=missing[0])
            check_shape(self, "logits[..., 0]", logits[..., 0], labels)
            return token_logps(logits, labels, trained, mean=self.require_mean_logps)
        found = []
        for name in wanted:
            value = require(self, outputs, name, "outputs")
            check_shape(self, name, value, labels)
            found.append(value if value.dtype == torch.float64 else value.float())
        return found[0], found[1] if self.require_mean_logps else None

    def _reduce(self, losses: Tensor, trained: Tensor, inputs: Batch) -> tuple[Tensor, Tensor | None]:
        if self.reduction == "sum":
            return losses.sum(), None
        if self.reduction == "token_mean":
            return losses.sum(), trained.sum().to(losses)
        index = sequence_index(trained, inputs.get("position_ids"))
        counts = losses.new_zeros(trained.numel()).index_add_(0, index.flatten(), trained.flatten().to(losses))
        loss = (losses / counts.clamp(min=1)[index]).sum()
        return loss, (counts > 0).sum().to(loss)


def _times_probability(losses: Tensor, nll: Tensor) -> Tensor:
    probability = nll.detach().neg().exp()
    # p·(-log p) goes to 0 with p, but 0·inf is NaN.
    return torch.where(probability > 0, probability * losses, 0.0)
