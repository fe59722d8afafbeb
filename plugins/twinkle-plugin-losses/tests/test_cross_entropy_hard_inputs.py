"""Cross entropy where inputs are masked, missing, oddly laid out or of low precision."""

import pytest
import torch
import torch.nn.functional as F

from twinkle_plugin_losses.cross_entropy import CrossEntropyLoss

OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"dft": True},
    {"dft": True, "label_smoothing": 0.1},
    {"reduction": "sequence_mean"},
    {"reduction": "sum"},
]


def by_options(test):
    return pytest.mark.parametrize("options", OPTIONS, ids=str)(test)


@by_options
def test_a_batch_without_labels_gives_zero_and_zero_gradients(example, outputs_of, options):
    logits, labels = example()
    labels[:] = -100
    output = CrossEntropyLoss(**options)({"labels": labels}, outputs_of(logits, labels))
    assert output["loss"] == 0
    assert output["num_tokens"] in (0, None)
    assert not torch.autograd.grad(output["loss"], logits)[0].any()


@by_options
def test_a_fully_masked_row_changes_nothing(example, outputs_of, options):
    logits, labels = example()
    loss = CrossEntropyLoss(**options)
    more_logits, more_labels = torch.cat([logits, logits[:1]]), torch.cat([labels, torch.full((1, 6), -100)])
    alone = loss({"labels": labels}, outputs_of(logits, labels))
    beside = loss({"labels": more_labels}, outputs_of(more_logits, more_labels))
    torch.testing.assert_close(beside["loss"], alone["loss"])
    assert beside["num_tokens"] == alone["num_tokens"]


@by_options
def test_vocabulary_masked_with_minus_infinity_gives_no_nan(example, options):
    logits, labels = example()
    masked = logits.detach().clone()
    masked[..., 7:] = -torch.inf
    labels = torch.where(labels >= 7, labels - 7, labels)
    masked.requires_grad_()
    output = CrossEntropyLoss(**options)({"labels": labels}, {"logits": masked})
    smaller = masked.detach()[..., :7].clone().requires_grad_()
    expected = CrossEntropyLoss(**options)({"labels": labels}, {"logits": smaller})
    torch.testing.assert_close(output["loss"], expected["loss"])
    gradient = torch.autograd.grad(output["loss"], masked)[0]
    assert not gradient[..., 7:].any()
    torch.testing.assert_close(gradient[..., :7], torch.autograd.grad(expected["loss"], smaller)[0])


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf")])
@by_options
def test_what_stands_at_unlabelled_positions_is_never_read(example, options, garbage):
    logits, labels = example()
    clean = CrossEntropyLoss(**options)({"labels": labels}, {"logits": logits})
    dirty_logits = logits.detach().clone()
    dirty_logits[labels == -100] = garbage
    dirty_logits.requires_grad_()
    dirty = CrossEntropyLoss(**options)({"labels": labels}, {"logits": dirty_logits})
    assert dirty["loss"] == clean["loss"]
    gradients = [torch.autograd.grad(output["loss"], x)[0] for output, x in ((dirty, dirty_logits), (clean, logits))]
    assert torch.equal(*gradients)


def test_log_probabilities_at_unlabelled_positions_are_never_read():
    logps = torch.tensor([[-1.0, float("nan"), -float("inf")]], requires_grad=True)
    labels = torch.tensor([[3, -100, -100]])
    output = CrossEntropyLoss()({"labels": labels}, {"logps": logps})
    assert output["loss"] == 1
    assert torch.autograd.grad(output["loss"], logps)[0].tolist() == [[-1, 0, 0]]


def test_a_label_of_probability_zero_costs_infinity_with_finite_gradients():
    logits = torch.tensor([[[0.0, 1.0, -torch.inf]]], requires_grad=True)
    output = CrossEntropyLoss()({"labels": torch.tensor([[2]])}, {"logits": logits})
    assert output["loss"] == torch.inf
    assert torch.autograd.grad(output["loss"], logits)[0].isfinite().all()


@pytest.mark.parametrize("options", [{"dft": True}, {"dft": True, "label_smoothing": 0.1}])
def test_dft_gives_a_label_of_probability_zero_no_weight(options):
    logits = torch.tensor([[[0.0, 1.0, -torch.inf]]], requires_grad=True)
    output = CrossEntropyLoss(**options)({"labels": torch.tensor([[2]])}, {"logits": logits})
    assert output["loss"] == 0
    assert torch.autograd.grad(output["loss"], logits)[0].isfinite().all()


def test_a_zero_weight_hides_a_label_of_probability_zero():
    logits = torch.tensor([[[0.0, 0.0, -torch.inf]] * 2], requires_grad=True)
    inputs = {"labels": torch.tensor([[2, 0]]), "loss_weights": torch.tensor([[0.0, 1.0]])}
    output = CrossEntropyLoss()(inputs, {"logits": logits})
    torch.testing.assert_close(output["loss"], torch.tensor(2.0).log())
    assert torch.autograd.grad(output["loss"], logits)[0].isfinite().all()


@pytest.mark.parametrize("view", ["sliced", "transposed", "expanded"])
def test_logits_may_have_any_strides(view):
    base = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(1))
    logits = {"sliced": base[:, ::2, 1:], "transposed": base.transpose(0, 1), "expanded": base[:1].expand(4, 3, 8)}[view]
    assert not logits.is_contiguous()
    labels = torch.arange(logits.shape[0] * logits.shape[1]).view(logits.shape[:2]) % logits.shape[2]
    output = CrossEntropyLoss()({"labels": labels}, {"logits": logits})
    torch.testing.assert_close(
        output["loss"], F.cross_entropy(logits.reshape(-1, logits.shape[2]), labels.flatten(), reduction="sum")
    )


@by_options
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(example, options, dtype):
    logits, labels = example(dtype=dtype)
    output = CrossEntropyLoss(**options)({"labels": labels}, {"logits": logits})
    accurate = CrossEntropyLoss(**options)({"labels": labels}, {"logits": logits.detach().float()})
    assert output["loss"].dtype == torch.float32
    assert output["loss"] == accurate["loss"]
    assert torch.autograd.grad(output["loss"], logits)[0].dtype == dtype


@by_options
def test_the_inputs_stay_as_they_were(example, outputs_of, options):
    logits, labels = example()
    inputs = {"labels": labels, "loss_weights": torch.rand(2, 6), "position_ids": torch.arange(6).repeat(2, 1)}
    outputs = outputs_of(logits, labels)
    before = {name: value.detach().clone() for name, value in (inputs | outputs).items()}
    CrossEntropyLoss(**options)(inputs, outputs)
    assert set(before) == set(inputs) | set(outputs)
    assert all(torch.equal(before[name], value) for name, value in (inputs | outputs).items())


def test_unknown_keywords_are_refused_by_name(example):
    logits, labels = example()
    with pytest.raises(ValueError, match="CrossEntropyLoss doesn't know 'advantages', 'old_logps'"):
        CrossEntropyLoss()({"labels": labels}, {"logits": logits}, old_logps=None, advantages=None)


def test_missing_labels_are_named(example):
    logits, _ = example()
    with pytest.raises(ValueError, match="needs 'labels' in its inputs, which hold: input_ids"):
        CrossEntropyLoss()({"input_ids": torch.zeros(2, 6)}, {"logits": logits})


def test_missing_outputs_are_named(example):
    _, labels = example()
    with pytest.raises(ValueError, match=r"needs 'logps' \(or 'logits'\) in its outputs, which hold: entropies"):
        CrossEntropyLoss()({"labels": labels}, {"entropies": torch.zeros(2, 6)})


def test_label_smoothing_names_the_output_that_it_misses(example):
    _, labels = example()
    with pytest.raises(ValueError, match=r"needs 'mean_logps' \(or 'logits'\)"):
        CrossEntropyLoss(0.1)({"labels": labels}, {"logps": torch.zeros(2, 6)})


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        ({}, {"logps": torch.zeros(2, 5)}, "logps"),
        ({}, {"logits": torch.zeros(2, 5, 11)}, "logits"),
        ({"loss_weights": torch.ones(12)}, {"logps": torch.zeros(2, 6)}, "loss_weights"),
        ({"position_ids": torch.zeros(3, 2, 6)}, {"logps": torch.zeros(2, 6)}, "position_ids"),
    ],
)
def test_shapes_that_dont_fit_are_refused_by_name(example, inputs, outputs, named):
    _, labels = example()
    with pytest.raises(ValueError, match=rf"{named}.* shape .*\[2, 6\]"):
        CrossEntropyLoss(reduction="sequence_mean")({"labels": labels, **inputs}, outputs)
