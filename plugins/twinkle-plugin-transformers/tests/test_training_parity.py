"""A training step is the step of a plain PyTorch + PEFT loop."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import get_cosine_schedule_with_warmup

from twinkle.errors import ConfigError, DataError


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Right-padded, unshifted labels, as Transformers' own loss takes them."""
    width = max(len(row["input_ids"]) for row in rows)
    pad = lambda values, filling: values + [filling] * (width - len(values))  # noqa: E731  # a local of one line
    return {
        "input_ids": torch.tensor([pad(row["input_ids"], 0) for row in rows]),
        "attention_mask": torch.tensor([pad([1] * len(row["input_ids"]), 0) for row in rows]),
        "labels": torch.tensor([pad(row["labels"], -100) for row in rows]),
    }


def plain_sum(model: Any, rows: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
    """Sum of cross entropies over all logits, and the number of labels."""
    batch = collate(rows)
    labels = batch.pop("labels")
    logits = model(**batch, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:].reshape(-1)
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets, reduction="sum"), int((targets != -100).sum())


def plain_copy(model: Any) -> Any:
    """The same model without anything of ours: PEFT's own layers."""
    plain = copy.deepcopy(model.model)
    for layer in plain.modules():
        if type(layer).__name__ == "FusedLoraLinear":
            layer.__class__ = type(layer).__bases__[0]
    plain.train()
    return plain


def trained(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
def test_loss_curve_and_weights_are_those_of_a_plain_loop(make_model, make_rows, adapter):
    model = make_model(adapter=adapter)
    model.set_lr_scheduler("CosineWarmupScheduler", num_warmup_steps=2, num_training_steps=6)
    plain = plain_copy(model)
    parameters = [value for value in plain.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, 6)
    for step in range(6):
        rows = make_rows(4, seed=step)
        output = model.forward_backward(inputs=rows)
        norm = model.clip_grad_and_step(0.5)
        total, tokens = plain_sum(plain, rows)
        (total / tokens).backward()
        total = total.detach()
        plain_norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert float(output["loss"]) == pytest.approx(float(total) / tokens, abs=1e-5)
        assert norm == pytest.approx(float(plain_norm), rel=1e-4)
    ours, theirs = trained(model.model), trained(plain)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-5)


def test_accumulation_steps_at_every_second_micro_batch(make_model, make_rows):
    model = make_model(accumulation=2)
    rows = make_rows(2)
    stepped = []
    for micro_batch in range(1, 8):
        before = trained(model.model)
        model.forward_backward(inputs=rows)
        norm = model.clip_grad_and_step()
        changed = any(not torch.equal(before[name], value) for name, value in trained(model.model).items())
        assert changed == (norm is not None)
        if changed:
            stepped.append(micro_batch)
    assert stepped == [2, 4, 6]


def test_the_rest_of_an_accumulation_is_stepped_on_request(make_model, make_rows):
    model = make_model(accumulation=4)
    model.forward_backward(inputs=make_rows(2))
    assert model.clip_grad_and_step() is None
    assert model.clip_grad_and_step(gradient_accumulation_steps=1) > 0
    assert model.clip_grad_and_step(gradient_accumulation_steps=1) is None


@pytest.mark.parametrize("sizes", [[6], [1, 5], [2, 2, 2], [3, 1, 2]])
def test_accumulated_gradient_is_the_token_mean_of_the_whole(make_model, make_rows, sizes):
    rows = make_rows(6)
    whole = make_model()
    whole.forward_backward(inputs=rows)
    norm = whole.clip_grad_norm(0.0)
    pieces = make_model(accumulation=len(sizes))
    start = 0
    for size in sizes:
        pieces.forward_backward(inputs=rows[start : start + size])
        start += size
    assert pieces.clip_grad_norm(0.0) == pytest.approx(norm, rel=1e-5)
    for (name, ours), theirs in zip(pieces.model.named_parameters(), whole.model.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_micro_batch_size_changes_neither_gradient_nor_outputs(make_model, make_rows, size):
    rows = make_rows(5)
    whole, pieces = make_model(), make_model()
    expected = whole.forward_backward(inputs=rows)
    found = pieces.forward_backward(inputs=rows, micro_batch_size=size)
    torch.testing.assert_close(found["logps"], expected["logps"], rtol=1e-5, atol=1e-5)
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
    assert pieces.clip_grad_and_step() == pytest.approx(whole.clip_grad_and_step(), rel=1e-5)


def test_micro_batches_get_their_own_rows_of_the_losss_keywords(make_model, make_rows):
    seen = []

    def weighted(inputs, outputs, *, advantages, beta):
        seen.append((advantages, beta, len(inputs["input_ids"])))
        return {"loss": -outputs["logps"].sum(), "num_tokens": 1.0}

    model = make_model()
    model.set_loss(weighted)
    model.forward_backward(inputs=make_rows(3), micro_batch_size=2, advantages=[0.1, 0.2, 0.3], beta=(0.9, 0.95, 0.99))
    assert seen == [([0.1, 0.2], (0.9, 0.95, 0.99), 2), ([0.3], (0.9, 0.95, 0.99), 1)]


def test_separate_calls_are_the_same_step_as_the_joint_ones(make_model, make_rows):
    joint, separate = make_model(accumulation=2), make_model(accumulation=2)
    joint.set_lr_scheduler("LinearWarmupScheduler", num_training_steps=5)
    separate.set_lr_scheduler("LinearWarmupScheduler", num_training_steps=5)
    for step in range(4):
        rows = make_rows(3, seed=step)
        joint.forward_backward(inputs=rows)
        joint.clip_grad_and_step()
        separate.forward(inputs=rows)
        assert separate.calculate_loss() > 0
        separate.backward()
        separate.clip_grad_norm(1.0)
        separate.step()
        separate.zero_grad()
        separate.lr_step()
    for ours, theirs in zip(separate.model.parameters(), joint.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_default_loss_is_a_mean_over_tokens(make_model, make_rows):
    model = make_model()
    rows = make_rows(4)
    once = float(model.forward_backward(inputs=rows)["loss"])
    assert float(model.forward_backward(inputs=rows + rows)["loss"]) == pytest.approx(once, rel=1e-5)
    assert once == pytest.approx(math.log(257), rel=0.1)


def test_a_batch_without_labels_to_learn_from_changes_nothing_but_counts(make_model, make_rows):
    model = make_model()
    rows = [{**row, "labels": [-100] * len(row["labels"])} for row in make_rows(2)]
    assert float(model.forward_backward(inputs=rows)["loss"]) == 0.0
    assert model.clip_grad_and_step() == 0.0


def test_a_gradient_that_is_not_finite_changes_no_weight(make_model, make_rows):
    model = make_model()
    before = trained(model.model)
    model.set_loss(lambda inputs, outputs: {"loss": outputs["logps"].sum() * math.inf, "num_tokens": 1.0})
    model.forward_backward(inputs=make_rows(2))
    assert not math.isfinite(model.clip_grad_and_step())
    assert all(torch.equal(before[name], value) for name, value in trained(model.model).items())


def test_a_loss_that_is_not_normalised_is_stepped_as_a_sum(make_model, make_rows):
    rows = make_rows(2)
    model = make_model()
    model.set_loss("CrossEntropyLoss", reduction="sum")
    model.forward_backward(inputs=rows)
    total = model.clip_grad_and_step()
    mean = make_model()
    mean.forward_backward(inputs=rows)
    tokens = sum(label != -100 for row in rows for label in row["labels"])
    assert total == pytest.approx(mean.clip_grad_and_step() * tokens, rel=1e-4)


def test_one_step_has_one_normalisation(make_model, make_rows):
    model = make_model(accumulation=2)
    model.forward_backward(inputs=make_rows(2))
    model.set_loss("CrossEntropyLoss", reduction="sum")
    with pytest.raises(ConfigError, match="num_tokens"):
        model.forward_backward(inputs=make_rows(2))


def test_gradient_checkpointing_is_off_unless_asked_for_and_changes_no_result(make_model, make_rows):
    rows = make_rows(3)
    plain, checkpointed = make_model(), make_model(gradient_checkpointing=True)
    assert not plain.model.is_gradient_checkpointing
    assert checkpointed.model.is_gradient_checkpointing
    plain.forward_backward(inputs=rows)
    checkpointed.forward_backward(inputs=rows)
    assert checkpointed.clip_grad_and_step() == pytest.approx(plain.clip_grad_and_step(), rel=1e-6)


def test_metrics_say_what_happened(make_model, make_rows):
    model = make_model()
    model.add_metric("Accuracy")
    losses = []
    for seed in range(3):
        losses.append(float(model.forward_backward(inputs=make_rows(4, seed=seed))["loss"]))
        model.clip_grad_and_step()
    found = model.calculate_metric(is_training=True)
    assert min(losses) < found["loss"] < max(losses)
    assert found["step"] == 3
    assert found["lr"] == pytest.approx(1e-2)
    assert "accuracy" in found
    assert "loss" not in model.calculate_metric(is_training=True)


def test_evaluation_has_metrics_of_its_own(make_model, make_rows):
    model = make_model()
    rows = make_rows(4)
    model.forward_only(inputs=rows)
    loss = model.calculate_loss()
    assert model.calculate_metric(is_training=False)["loss"] == pytest.approx(loss, rel=1e-6)
    assert "loss" not in model.calculate_metric(is_training=True)


def test_a_bad_row_leaves_no_half_of_a_gradient(make_model, make_rows):
    model = make_model()
    rows = make_rows(3)
    with pytest.raises(DataError, match="input_ids"):
        model.forward_backward(inputs=[*rows, {"labels": [1]}], micro_batch_size=1)
    assert model.clip_grad_and_step(gradient_accumulation_steps=1) is None
    assert all(value.grad is None for value in model.model.parameters())


@pytest.mark.parametrize("options", [{}, {"padding_side": "left"}, {"padding_free": True}], ids=["right", "left", "packed"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pieces_give_what_the_whole_batch_gives_however_it_is_padded(make_model, make_rows, options, size):
    rows = make_rows(5)
    model = make_model()
    model.set_processor("InputProcessor", **options)
    names = ["logps", "correct", "logits"]
    whole = model.forward_only(inputs=rows, outputs=names)
    loss = model.calculate_loss()
    pieces = model.forward_only(inputs=rows, outputs=names, micro_batch_size=size)
    assert model.calculate_loss() == pytest.approx(loss, rel=1e-5)
    labelled = whole["logps"] != 0
    for name in names:
        assert pieces[name].shape == whole[name].shape
        torch.testing.assert_close(pieces[name][labelled], whole[name][labelled], rtol=1e-4, atol=1e-5)
    trained = model.forward_backward(inputs=rows, micro_batch_size=size)
    torch.testing.assert_close(trained["logps"], whole["logps"], rtol=1e-4, atol=1e-5)
    assert float(trained["loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tensor_beside_the_batch_is_cut_with_it(make_model, make_rows, side):
    """As the log-probabilities of an earlier policy are, in reinforcement learning."""
    rows = make_rows(5)

    def ratio(inputs, outputs, *, old):
        return {"loss": -(outputs["logps"] - old).exp().sum(), "num_tokens": None}

    norms = []
    for size in (None, 2):
        model = make_model()
        model.set_processor("InputProcessor", padding_side=side)
        old = model.forward_only(inputs=rows, micro_batch_size=size)["logps"]
        model.set_loss(ratio)
        model.forward_backward(inputs=rows, micro_batch_size=size, old=old)
        norms.append(model.clip_grad_norm())
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_pieces_are_worked_on_without_the_padding_of_other_rows(make_model):
    model = make_model()
    rows = [{"input_ids": list(range(2, 2 + n)), "labels": list(range(2, 2 + n))} for n in (20, 6)]
    widths = []
    model.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    model.forward_backward(inputs=rows)
    widths.clear()
    model.forward_backward(inputs=rows, micro_batch_size=1)
    assert widths == [20, 6]


def test_a_single_row_is_one_row(make_model, make_rows):
    row = make_rows(1)[0]
    assert make_model().forward_backward(inputs=row, micro_batch_size=2)["logps"].shape == (1, len(row["input_ids"]))


def test_encoded_rows_that_still_have_their_messages_are_taken_as_they_are(make_model, make_rows):
    model, rows = make_model(), make_rows(2)
    told = [{**row, "messages": [{"role": "user", "content": "Hi"}]} for row in rows]
    assert torch.equal(model.forward_only(inputs=told)["logps"], model.forward_only(inputs=rows)["logps"])


@pytest.mark.parametrize(
    "returned",
    [lambda logps: -logps.sum(), lambda logps: {"loss": -logps.sum()}, lambda logps: {"loss": -logps, "num_tokens": 1.0}],
    ids=["a tensor", "no num_tokens", "no scalar"],
)
def test_a_loss_that_returns_something_else_is_told_what_to_return(make_model, make_rows, returned):
    def mine(inputs, outputs):
        return returned(outputs["logps"])

    model = make_model()
    model.set_loss(mine)
    with pytest.raises(ConfigError, match=r"loss mine has to return LossOutput\(loss=…, num_tokens=…\)"):
        model.forward_backward(inputs=make_rows(2))
    assert model.clip_grad_and_step(gradient_accumulation_steps=1) is None
