"""Cross entropy against PyTorch's, and what its options mean."""

import math

import pytest
import torch
import torch.nn.functional as F

from twinkle.errors import ConfigError
from twinkle_plugin_losses.cross_entropy import CrossEntropyLoss


def gradient_of(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def torch_cross_entropy(logits, labels, **options):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **options)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_value_and_gradient_are_those_of_pytorch(example, outputs_of, label_smoothing):
    logits, labels = example()
    output = CrossEntropyLoss(label_smoothing)({"labels": labels}, outputs_of(logits, labels))
    mean = output["loss"] / output["num_tokens"]
    expected = torch_cross_entropy(logits, labels, label_smoothing=label_smoothing)
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient_of(mean, logits), gradient_of(expected, logits), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"reduction": "sequence_mean"}, {"reduction": "sum"}])
def test_gradients_agree_with_finite_differences(example, outputs_of, options):
    logits, labels = example(dtype=torch.float64)
    weights = torch.linspace(-1, 2, 12, dtype=torch.float64).view(2, 6)
    loss = CrossEntropyLoss(**options)
    inputs = {"labels": labels, "loss_weights": weights}
    assert torch.autograd.gradcheck(lambda x: loss(inputs, outputs_of(x, labels))["loss"], (logits,))


def test_token_mean_counts_labelled_tokens(example, outputs_of):
    logits, labels = example()
    assert CrossEntropyLoss()({"labels": labels}, outputs_of(logits, labels))["num_tokens"] == 8


def test_the_sum_isnt_normalised(example, outputs_of):
    logits, labels = example()
    output = CrossEntropyLoss(reduction="sum")({"labels": labels}, outputs_of(logits, labels))
    assert output["num_tokens"] is None
    torch.testing.assert_close(output["loss"], torch_cross_entropy(logits, labels, reduction="sum"))


def test_each_sequence_counts_one_under_sequence_mean(example, outputs_of):
    logits, labels = example()
    labels[0, 3:] = -100  # one token against four
    output = CrossEntropyLoss(reduction="sequence_mean")({"labels": labels}, outputs_of(logits, labels))
    rows = [F.cross_entropy(row, targets) for row, targets in zip(logits, labels, strict=True)]
    torch.testing.assert_close(output["loss"], rows[0] + rows[1])
    assert output["num_tokens"] == 2


def test_sequences_without_labels_dont_dilute_sequence_mean(example, outputs_of):
    logits, labels = example()
    labels[0] = -100
    output = CrossEntropyLoss(reduction="sequence_mean")({"labels": labels}, outputs_of(logits, labels))
    assert output["num_tokens"] == 1
    torch.testing.assert_close(output["loss"], torch_cross_entropy(logits, labels))


def test_packed_sequences_count_as_if_they_were_rows(example, outputs_of):
    logits, labels = example()
    loss = CrossEntropyLoss(reduction="sequence_mean")
    rows = loss({"labels": labels}, outputs_of(logits, labels))
    packed_logits, packed_labels = logits.reshape(1, 12, 11), labels.reshape(1, 12)
    positions = torch.arange(6).repeat(2).view(1, 12)
    packed = loss({"labels": packed_labels, "position_ids": positions}, outputs_of(packed_logits, packed_labels))
    torch.testing.assert_close(packed["loss"], rows["loss"])
    assert packed["num_tokens"] == rows["num_tokens"] == 2


def test_neighbouring_sequences_of_one_token_are_two(outputs_of):
    logits, labels = torch.zeros(1, 3, 4), torch.tensor([[1, 2, 3]])
    inputs = {"labels": labels, "position_ids": torch.tensor([[0, 0, 1]])}
    output = CrossEntropyLoss(reduction="sequence_mean")(inputs, outputs_of(logits, labels))
    assert output["num_tokens"] == 2
    assert output["loss"].item() == pytest.approx(2 * math.log(4))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_dft_multiplies_a_tokens_loss_by_its_probability_without_a_gradient_through_it(example, outputs_of, label_smoothing):
    logits, labels = example()
    output = CrossEntropyLoss(label_smoothing, dft=True)({"labels": labels}, outputs_of(logits, labels))
    tokens = torch_cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    probability = torch_cross_entropy(logits, labels, reduction="none").detach().neg().exp()
    expected = (probability * tokens).sum()
    torch.testing.assert_close(output["loss"], expected)
    torch.testing.assert_close(gradient_of(output["loss"], logits), gradient_of(expected, logits))


def test_weights_scale_tokens_and_not_what_the_sum_is_divided_by(example, outputs_of):
    logits, labels = example()
    weights = torch.linspace(-1.5, 2.5, 12).view(2, 6)
    output = CrossEntropyLoss()({"labels": labels, "loss_weights": weights}, outputs_of(logits, labels))
    tokens = torch_cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(output["loss"], (weights.flatten() * tokens).sum())
    assert output["num_tokens"] == 8


def test_half_the_weight_everywhere_is_half_the_gradient(example, outputs_of):
    logits, labels = example()
    loss, outputs = CrossEntropyLoss(), outputs_of(logits, labels)
    whole = loss({"labels": labels}, outputs)
    half = loss({"labels": labels, "loss_weights": torch.full((2, 6), 0.5)}, outputs)
    torch.testing.assert_close(half["loss"] / half["num_tokens"], 0.5 * whole["loss"] / whole["num_tokens"])


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sum"])
def test_a_weight_of_zero_is_the_same_as_no_label(example, outputs_of, reduction):
    logits, labels = example()
    loss, outputs = CrossEntropyLoss(reduction=reduction), outputs_of(logits, labels)
    weights = torch.ones(2, 6)
    weights[1] = 0
    unlabelled = labels.clone()
    unlabelled[1] = -100
    weighted = loss({"labels": labels, "loss_weights": weights}, outputs)
    masked = loss({"labels": unlabelled}, outputs)
    assert weighted["loss"] == masked["loss"]
    assert weighted["num_tokens"] == masked["num_tokens"]


def test_weights_can_stand_for_the_gradient_of_any_custom_loss(example):
    """A custom loss as the Tinker protocol has it: backward through ``-Σ w·logp`` with ``w = -dL/dlogp``."""
    logits, labels = example()
    logps = -torch_cross_entropy(logits, labels.clamp(min=0), reduction="none").view(2, 6)
    custom = ((logps - 0.3) ** 3 * (labels != -100)).sum()
    weights = -torch.autograd.grad(custom, logps, retain_graph=True)[0]
    surrogate = CrossEntropyLoss(reduction="sum")({"labels": labels, "loss_weights": weights}, {"logits": logits})
    torch.testing.assert_close(gradient_of(surrogate["loss"], logits), gradient_of(custom, logits))


def test_reports_what_a_perplexity_needs_whatever_the_options(example, outputs_of):
    logits, labels = example()
    weights = torch.full((2, 6), 0.25)
    output = CrossEntropyLoss(0.1, dft=True)({"labels": labels, "loss_weights": weights}, outputs_of(logits, labels))
    torch.testing.assert_close(output["metrics"]["nll"], torch_cross_entropy(logits, labels, reduction="sum").detach())
    assert not output["metrics"]["nll"].requires_grad
    assert output["metrics"]["nll_tokens"] == 8


def test_asks_for_the_vocabularys_mean_only_where_labels_are_smoothed():
    assert not CrossEntropyLoss().require_mean_logps
    assert CrossEntropyLoss(0.1).require_mean_logps
    assert not CrossEntropyLoss.require_mean_logps


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.5, float("nan"), "0.1", True])
def test_label_smoothing_out_of_range_is_refused(label_smoothing):
    with pytest.raises(ConfigError, match=r"label_smoothing is .* from 0 to 1"):
        CrossEntropyLoss(label_smoothing)


def test_an_unknown_reduction_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"no reduction 'mean'.*'token_mean', 'sequence_mean', 'sum'"):
        CrossEntropyLoss(reduction="mean")


def test_dft_has_to_be_a_truth_value():
    with pytest.raises(ConfigError, match=r"dft is 0\.5"):
        CrossEntropyLoss(dft=0.5)
