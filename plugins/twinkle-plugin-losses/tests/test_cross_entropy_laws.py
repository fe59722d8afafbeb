"""What holds for every batch: padding changes nothing, and shards sum to the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle_plugin_losses.cross_entropy import CrossEntropyLoss

VOCABULARY = 7

losses = st.builds(
    CrossEntropyLoss,
    label_smoothing=st.sampled_from([0.0, 0.3]),
    dft=st.booleans(),
    reduction=st.sampled_from(["token_mean", "sequence_mean", "sum"]),
)


@st.composite
def sequences(draw):
    """1 to 5 sequences: each ``(logits [T, V], labels [T], weights [T])`` in float64."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    found = []
    for length in lengths:
        labels = torch.randint(-1, VOCABULARY, (length,), generator=generator)
        weights = torch.randint(-2, 4, (length,), generator=generator) / 2
        logits = torch.randn(length, VOCABULARY, generator=generator, dtype=torch.float64)
        found.append((logits, torch.where(labels < 0, -100, labels), weights))
    return found


def padded(rows, *, extra=0, left=False):
    """The rows as one batch ``(inputs, outputs)``, with ``extra`` columns of padding that holds garbage."""
    width = max(len(labels) for _, labels, _ in rows) + extra
    logits = torch.full((len(rows), width, VOCABULARY), 99.0, dtype=torch.float64)
    labels, weights = torch.full((len(rows), width), -100), torch.full((len(rows), width), torch.nan)
    positions = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, (row_logits, row_labels, row_weights) in enumerate(rows):
        length = len(row_labels)
        span = slice(width - length, width) if left else slice(0, length)
        logits[index, span], labels[index, span], weights[index, span] = row_logits, row_labels, row_weights
        positions[index, span] = torch.arange(length)
    return {"labels": labels, "loss_weights": weights, "position_ids": positions}, {"logits": logits}


def packed(rows):
    """The rows one after another in a single row."""
    logits, labels, weights = (torch.cat(parts).unsqueeze(0) for parts in zip(*rows, strict=True))
    positions = torch.cat([torch.arange(len(row[1])) for row in rows]).unsqueeze(0)
    return {"labels": labels, "loss_weights": weights, "position_ids": positions}, {"logits": logits}


def value_of(output):
    return output["loss"].item(), None if output["num_tokens"] is None else float(output["num_tokens"])


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-12, abs=1e-12)
    assert found[1] == expected[1]


@given(losses, sequences(), st.integers(0, 4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_padding_on_either_side_changes_nothing(loss, rows, extra, left):
    assert_same(value_of(loss(*padded(rows, extra=extra, left=left))), value_of(loss(*padded(rows))))


@given(losses, sequences())
@settings(max_examples=60, deadline=None)
def test_packing_changes_nothing(loss, rows):
    assert_same(value_of(loss(*packed(rows))), value_of(loss(*padded(rows))))


@given(losses, sequences(), st.data())
@settings(max_examples=60, deadline=None)
def test_shards_sum_to_the_whole(loss, rows, data):
    cut = data.draw(st.integers(0, len(rows)))
    shards = [value_of(loss(*padded(shard))) for shard in (rows[:cut], rows[cut:]) if shard]
    whole = value_of(loss(*padded(rows)))
    total = sum(shard[0] for shard in shards), None if whole[1] is None else sum(shard[1] for shard in shards)
    assert_same(total, whole)


@given(losses, sequences(), st.floats(-3, 3).filter(lambda factor: abs(factor) > 1e-3))
@settings(max_examples=60, deadline=None)
def test_the_loss_is_linear_in_the_weights(loss, rows, factor):
    inputs, outputs = padded(rows)
    scaled = inputs | {"loss_weights": inputs["loss_weights"].double() * factor}
    plain = value_of(loss(inputs, outputs))
    assert_same(value_of(loss(scaled, outputs)), (plain[0] * factor, plain[1]))
