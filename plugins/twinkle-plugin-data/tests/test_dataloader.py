"""DataLoader: which rows come in which batch, on which rank; what happens at the end, and to rows that can't be had."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle.device_mesh import DeviceMesh
from twinkle.errors import ConfigError, DataError, MeshError
from twinkle.launch import Launch
from twinkle.local_runtime import LocalRuntime
from twinkle.runtime import RuntimeSettings, initialize, use_runtime
from twinkle_plugin_data.dataloader import DataLoader
from twinkle_plugin_data.fetching import SkippedRow


class Broken:
    """Row ``n`` is ``n``; rows in ``bad`` can't be had. Counts what is fetched."""

    def __init__(self, size, bad=()):
        self.size, self.bad, self.fetched = size, set(bad), []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.fetched.append(index)
        if index in self.bad:
            raise DataError(f"Row {index} of 'there' is bad.")
        return index


def numbers(size):
    return list(range(size))


def test_batches_are_lists_of_rows_in_order():
    assert list(DataLoader(numbers(5), batch_size=2)) == [[0, 1], [2, 3], [4]]


def test_the_data_set_may_be_a_function_that_makes_it():
    assert list(DataLoader(lambda: numbers(3), batch_size=3)) == [[0, 1, 2]]


def test_each_row_is_fetched_once():
    rows = Broken(7)
    list(DataLoader(rows, batch_size=2))
    assert rows.fetched == numbers(7)


@given(
    size=st.integers(0, 40), batch_size=st.integers(1, 9), ranks=st.integers(1, 4), shuffle=st.booleans(), drop_last=st.booleans()
)
@settings(deadline=None)
def test_ranks_share_each_batch_and_none_goes_without(size, batch_size, ranks, shuffle, drop_last):
    options = {"batch_size": batch_size * ranks, "shuffle": shuffle, "drop_last": drop_last, "seed": 3}
    whole = list(DataLoader(numbers(size), **options, device_mesh=DeviceMesh.from_sizes()))
    by_rank = []
    for rank in range(ranks):
        with use_runtime(LocalRuntime(launch=Launch(rank, ranks, rank, ranks))):
            loader = DataLoader(numbers(size), **options)
            by_rank.append(list(loader))
            assert len(by_rank[-1]) == len(loader)
    assert len({len(batches) for batches in by_rank}) == 1
    for number, shares in enumerate(zip(*by_rank, strict=True)):
        assert all(shares)
        assert [row for share in shares for row in share] == whole[number]


def test_ranks_of_one_tensor_parallel_group_get_the_same_rows():
    got = []
    for rank in range(4):
        mesh = DeviceMesh.from_sizes(dp_size=2, tp_size=2)
        with use_runtime(LocalRuntime(RuntimeSettings(global_device_mesh=mesh), Launch(rank, 4, rank, 4))):
            got.append(next(iter(DataLoader(numbers(4), batch_size=4))))
    assert got == [[0, 1], [0, 1], [2, 3], [2, 3]]


@pytest.mark.parametrize(("size", "batches"), [(9, 2), (10, 3), (8, 2), (7, 2)])
def test_a_last_batch_with_fewer_rows_than_ranks_is_left_out_and_not_counted(as_rank, size, batches):
    with as_rank(1, 2):
        loader = DataLoader(numbers(size), batch_size=4)
        assert len(loader) == len(list(loader)) == batches


@pytest.mark.parametrize(
    ("options", "batches"), [({}, 3), ({"drop_last": True}, 2), ({"min_batch_size": 3}, 2), ({"min_batch_size": 2}, 3)]
)
def test_how_short_the_last_batch_may_be_can_be_chosen(options, batches):
    loader = DataLoader(numbers(10), batch_size=4, **options)
    assert len(loader) == len(list(loader)) == batches


def test_a_batch_that_ranks_cannot_share_evenly_is_an_error_naming_both(as_rank):
    with as_rank(0, 3), pytest.raises(ConfigError, match=r"batch_size=8 .* 3 data-parallel ranks.*such as 6 or 9"):
        DataLoader(numbers(10), batch_size=8)


def test_a_mesh_that_does_not_fit_the_world_is_an_error():
    with pytest.raises(MeshError, match="needs 2 process"):
        DataLoader(numbers(4), batch_size=2, device_mesh=DeviceMesh.from_sizes(dp_size=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size has to be a whole number of at least 1, not 0"),
        ({"batch_size": "8"}, "batch_size has to be a whole number of at least 1, not '8'"),
        ({"seed": -1}, "seed of a data loader can't be negative: -1"),
        ({"min_batch_size": 9}, "min_batch_size has to be from 1 to batch_size=8"),
        ({"sampler": None}, "no 'sampler'"),
        ({"bach_size": 3}, "no 'bach_size'.*prefetch_factor"),
        ({"prefetch_factor": 2}, "can't be made"),
        ({"on_error": "ignore"}, "on_error has to be 'raise' or 'skip'"),
    ],
)
def test_arguments_that_do_not_fit_are_errors_at_once(options, message):
    with pytest.raises(ConfigError, match=message):
        DataLoader(numbers(4), **options)


def test_pytorchs_own_arguments_are_passed_on():
    loader = DataLoader(numbers(4), batch_size=2, collate_fn=torch.tensor)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]


# -- order


def test_shuffling_gives_every_row_once_in_another_order_each_pass():
    loader = DataLoader(numbers(20), batch_size=4, shuffle=True, seed=1)
    passes = [[row for batch in loader for row in batch] for _ in range(3)]
    assert all(sorted(rows) == numbers(20) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 3


def test_the_order_is_given_by_seed_and_pass_alone():
    first, again, other = (DataLoader(numbers(20), shuffle=True, seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(0)
    expected = list(first), list(first)
    torch.manual_seed(1)
    assert (list(again), list(again)) == expected
    assert list(other) != expected[0]


def test_the_seed_is_that_of_the_run_where_none_is_given():
    with use_runtime(None):
        initialize(seed=7)
        mine = list(DataLoader(numbers(20), shuffle=True))
    assert mine == list(DataLoader(numbers(20), shuffle=True, seed=7))


# -- rows that can't be had


@pytest.mark.parametrize("workers", [0, 1])
def test_by_default_a_bad_row_is_an_error_that_arrives_as_it_was_raised(workers):
    with pytest.raises(DataError) as caught:
        list(DataLoader(Broken(4, bad=[2]), batch_size=2, num_workers=workers))
    assert str(caught.value) == "Row 2 of 'there' is bad."


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores are fine here
@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_takes_the_next_row_and_notes_what_was_left_out(workers):
    loader = DataLoader(Broken(6, bad=[1, 2]), batch_size=3, on_error="skip", num_workers=workers)
    assert list(loader) == [[0, 3, 3], [3, 4, 5]]
    assert set(loader.skipped) == {SkippedRow(1, "Row 1 of 'there' is bad."), SkippedRow(2, "Row 2 of 'there' is bad.")}


def test_skipping_ends_where_everything_is_bad():
    with pytest.raises(DataError, match=r"20 rows one after the other can't be had, from row 0 on. The last: Row 19"):
        list(DataLoader(Broken(50, bad=range(50)), on_error="skip"))
