"""The forward pass: a batch to exactly the outputs that were asked for.

Where a model is "backbone, then a linear head" the backbone runs alone and the head only sees labelled positions; that this is so
is checked on the model itself. Every other model runs whole and its logits are used. Knows nothing of losses or adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from twinkle.data_format import IGNORE_INDEX, Batch, ModelOutput
from twinkle.errors import ConfigError, DataError
from twinkle_plugin_transformers.head import LabelScores, Needs, score_labels, scores_of_logits
from twinkle_plugin_transformers.inputs import InputCheck
from twinkle_plugin_transformers.precision import Precision

_MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


class ForwardPass:
    """Runs one base model. Whether its head can be taken apart from its backbone is found out once, at the first use."""

    def __init__(self, base: Any, precision: Precision) -> None:
        self.base = base
        self.precision = precision
        self._splits: bool | None = None
        self._check = InputCheck(base)

    def __call__(self, batch: Batch, needs: Needs, *, graded: Needs | None = None, temperature: float = 1.0) -> ModelOutput:
        """The outputs that ``needs`` names, for ``batch`` on the model's device.

        ``graded`` says which of them a gradient may be asked of (None: all).
        ``temperature`` divides the logits (and so acts on every output but ``logits`` themselves).

        Raises:
            DataError: something is needed at labels, and the batch has none; or its numbers aren't this model's.
        """
        if temperature <= 0:
            raise ConfigError(f"temperature has to be positive, not {temperature}.")
        labels = batch.get("labels")
        if needs.per_label and labels is None:
            raise DataError("These rows have no labels, so there is nothing to give log-probabilities of. Encode them with labels.")
        self._check(batch)
        # The names are those of the TypedDict, which mypy only believes of literals.
        inputs: dict[str, Any] = {name: batch[name] for name in _MODEL_INPUTS if batch.get(name) is not None}  # type: ignore[literal-required]
        with self.precision.context():
            if needs.logits or not self._head_splits():
                return self._whole(inputs, labels, needs, temperature)
            return self._split(inputs, labels, needs, graded, temperature)

    def _split(
        self, inputs: Mapping[str, Any], labels: Tensor | None, needs: Needs, graded: Needs | None, temperature: float
    ) -> ModelOutput:
        hidden = self.base.get_decoder()(**inputs, use_cache=False).last_hidden_state
        if labels is None or not needs.per_label:
            return ModelOutput()
        index = (labels.reshape(-1) != IGNORE_INDEX).nonzero()[:, 0]
        rows = hidden.reshape(-1, hidden.shape[-1])
        if index.numel() < rows.shape[0]:
            rows = rows.index_select(0, index)
        if temperature != 1.0:
            rows = rows / temperature
        targets = labels.reshape(-1).index_select(0, index)
        scores = score_labels(rows, targets, self.base.get_output_embeddings(), needs, graded)
        return _spread(scores, index, labels)

    def _whole(self, inputs: Mapping[str, Any], labels: Tensor | None, needs: Needs, temperature: float) -> ModelOutput:
        logits = self.base(**inputs, use_cache=False).logits
        output = ModelOutput()
        if labels is not None and needs.per_label:
            index = (labels.reshape(-1) != IGNORE_INDEX).nonzero()[:, 0]
            rows = logits.reshape(-1, logits.shape[-1]).index_select(0, index)
            scores = scores_of_logits(rows / temperature, labels.reshape(-1).index_select(0, index), needs)
            output = _spread(scores, index, labels)
        if needs.logits:
            output["logits"] = logits
        return output

    def _head_splits(self) -> bool:
        if self._splits is None:
            self._splits = head_splits(self.base)
        return self._splits


def head_splits(base: Any) -> bool:
    """Whether ``base(x).logits`` is its head applied to its decoder's last hidden state, and nothing more.

    Runs the model on four tokens with a head that answers with known large numbers: the head has to be given the decoder's
    output, bit by bit, and the numbers have to come out unchanged, which shows scales, soft caps and offsets however small
    their effect on a real logit.
    """
    decoder, head = getattr(base, "get_decoder", lambda: None)(), base.get_output_embeddings()
    if decoder is None or decoder is base or head is None or not isinstance(getattr(head, "out_features", None), int):
        return False
    seen: list[Tensor] = []
    probe = torch.linspace(-1000.0, 1000.0, 4 * head.out_features).view(1, 4, -1)

    def answer(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(args[0])
        return probe.to(output)

    ids = torch.arange(4, device=next(base.parameters()).device)[None]
    was_training = base.training
    base.eval()
    handle = head.register_forward_hook(answer)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            logits = base(input_ids=ids, use_cache=False).logits
            hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        handle.remove()
        base.train(was_training)
    return len(seen) == 1 and torch.equal(seen[0], hidden) and torch.equal(logits, probe.to(logits))


def _spread(scores: LabelScores, index: Tensor, labels: Tensor) -> ModelOutput:
    """Scores ``[n]`` at flat positions ``index`` to ``[B, T]``, 0 or False elsewhere."""
    output = ModelOutput()
    for name in ("logps", "mean_logps", "entropies", "correct"):
        values: Tensor | None = getattr(scores, name)
        if values is not None:
            flat = torch.zeros(labels.numel(), dtype=values.dtype, device=values.device)
            output[name] = flat.index_copy(0, index, values).view(labels.shape)
    return output


def detached(output: ModelOutput) -> ModelOutput:
    """The same without the graph."""
    # Each value is what it was, without its graph; mypy can't see that through a comprehension.
    return ModelOutput(**{name: value.detach() if isinstance(value, Tensor) else value for name, value in output.items()})  # type: ignore[typeddict-item]
