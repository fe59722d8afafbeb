"""Several sources in one data set: one after the other, in turn, by probabilities."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle.dataset import DatasetMeta
from twinkle.errors import ConfigError
from twinkle_plugin_data.dataset import Dataset


def build(*sizes):
    dataset = Dataset()
    for source, size in enumerate(sizes):
        dataset.add_dataset(DatasetMeta(data=[{"id": f"{'abc'[source]}{n}"} for n in range(size)]))
    return dataset


def ids(dataset):
    return [row["id"] for row in dataset]


def test_sources_stand_one_after_the_other_in_the_order_they_were_added():
    assert ids(build(2, 1)) == ids(build(2, 1).mix_dataset(interleave=False)) == ["a0", "a1", "b0"]


def test_interleaving_takes_a_row_of_each_in_turn_until_all_are_through():
    assert ids(build(3, 1, 2).mix_dataset()) == ["a0", "b0", "c0", "a1", "c1", "a2"]


def test_first_exhausted_stops_with_the_shortest():
    assert ids(build(3, 2).mix_dataset(stopping_strategy="first_exhausted")) == ["a0", "b0", "a1", "b1"]


def test_all_exhausted_starts_short_sources_again():
    assert ids(build(3, 1).mix_dataset(stopping_strategy="all_exhausted")) == ["a0", "b0", "a1", "b0", "a2"]


def test_probabilities_decide_and_the_seed_repeats_them():
    first, again, other = (ids(build(3, 3).mix_dataset(probabilities=[0.9, 0.1], seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.booleans(), st.integers(0, 5))
@settings(deadline=None)
def test_by_default_every_row_comes_exactly_once(sizes, at_random, seed):
    mixed = build(*sizes).mix_dataset(probabilities=[1.0 + n for n in range(len(sizes))] if at_random else None, seed=seed)
    assert sorted(ids(mixed)) == sorted(ids(build(*sizes)))


def test_rows_keep_saying_where_they_came_from():
    assert build(2, 2).mix_dataset().where(2) == "row 1 of 'data in memory'"


@pytest.mark.parametrize("probabilities", [[1.0], [0.5, -0.5], [1.0, 0.0]])
def test_probabilities_that_do_not_fit_are_an_error(probabilities):
    with pytest.raises(ConfigError, match="one positive number for each of the 2 data sets"):
        build(2, 2).mix_dataset(probabilities=probabilities)


def test_an_unknown_stopping_strategy_is_an_error_that_lists_them():
    with pytest.raises(ConfigError, match="first_exhausted, all_exhausted"):
        build(1).mix_dataset(stopping_strategy="never")


def test_mixing_nothing_gives_nothing():
    assert len(Dataset().mix_dataset()) == 0
