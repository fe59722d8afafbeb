"""LazyDataset: nothing happens before somebody looks, and then once."""

from __future__ import annotations

import numpy as np
import pytest

from twinkle.dataset import DatasetMeta
from twinkle.errors import DataError
from twinkle_plugin_data.dataloader import DataLoader
from twinkle_plugin_data.dataset import Dataset
from twinkle_plugin_data.lazy import LazyDataset


@pytest.fixture
def trajectories(chat):
    return [chat("q" * (n + 1), "a") for n in range(12)]


@pytest.fixture
def lazy(trajectories, template):
    return LazyDataset(DatasetMeta(data=trajectories)).set_template(template)


def test_nothing_is_mapped_or_encoded_before_a_row_is_looked_at(lazy, template):
    calls = []
    lazy.map(lambda row: calls.append(row) or row).encode()
    assert (len(lazy), calls, template.encoded) == (12, [], 0)
    lazy[3]
    assert (len(calls), template.encoded) == (1, 1)


def test_rows_are_those_of_a_dataset(lazy, trajectories, make_template):
    eager = Dataset(DatasetMeta(data=trajectories)).set_template(make_template()).encode()
    for mine, other in zip(lazy.encode(), eager, strict=True):
        assert mine.keys() == other.keys()
        np.testing.assert_array_equal(mine["input_ids"], other["input_ids"])


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_pass_of_the_data_loader_maps_and_encodes_each_row_once(lazy, template, shuffle):
    calls = []
    lazy.map(lambda row: calls.append(len(row["messages"][0]["content"])) or row).encode()
    rows = [row for batch in DataLoader(lazy, batch_size=4, shuffle=shuffle) for row in batch]
    assert sorted(calls) == list(range(1, 13))
    assert (len(rows), template.encoded) == (12, 12)


def test_a_batch_is_encoded_in_one_call(lazy, template):
    sizes = []
    encode = template.batch_encode
    template.batch_encode = lambda rows, **options: sizes.append(len(rows)) or encode(rows, **options)
    list(DataLoader(lazy.encode(), batch_size=4))
    assert sizes == [4, 4, 4]


def test_in_place_of_a_dropped_row_stands_the_next_that_is_kept(lazy):
    lazy.filter(lambda row: len(row["messages"][0]["content"]) not in (3, 4, 12))
    lengths = [len(lazy[index]["messages"][0]["content"]) for index in (1, 2, 3, 4, 11)]
    assert lengths == [2, 5, 5, 5, 1]


def test_dropping_every_row_is_an_error(lazy):
    with pytest.raises(DataError, match="filter drops every row"):
        lazy.filter(lambda row: False)[0]


def test_rows_that_a_template_splits_are_an_error_with_the_way_out(trajectories, make_template):
    lazy = LazyDataset(DatasetMeta(data=trajectories)).set_template(make_template(5, "split")).encode()
    assert len(lazy[0]["input_ids"]) == 2
    with pytest.raises(DataError, match=r"encode made 3 rows of row 11 of .*Use a Dataset, or a truncation_strategy"):
        lazy[11]


def test_a_bad_row_is_an_error_only_when_it_is_looked_at_and_named(write_jsonl, chat, template):
    path = write_jsonl([chat(), {"query": "?"}])
    lazy = LazyDataset(str(path)).set_template(template).encode()
    assert len(lazy[0]["input_ids"]) == 4
    with pytest.raises(DataError, match=rf"Row 1 of '{path}' has no field 'messages'"):
        lazy[1]


def test_it_can_be_mixed_and_sliced_like_a_dataset(chat, template):
    lazy = LazyDataset(DatasetMeta(data=[chat("a", "b")] * 2, data_slice=range(3)))
    lazy.add_dataset(DatasetMeta(data=[chat("x", "y")])).mix_dataset().set_template(template).encode()
    assert ["".join(map(chr, row["input_ids"])) for row in lazy] == ["ab", "xy", "ab", "ab"]


def test_iterating_encodes_no_row_ahead(lazy, template):
    rows = iter(lazy.encode())
    next(rows), next(rows)
    assert template.encoded == 2


def test_workers_see_the_same_rows(lazy):
    def ids(workers):
        return [row["input_ids"].tolist() for batch in DataLoader(lazy, batch_size=5, num_workers=workers) for row in batch]

    lazy.encode()
    assert ids(1) == ids(0)
