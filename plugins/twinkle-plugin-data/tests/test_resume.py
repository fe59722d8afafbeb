"""Resuming a data loader: the rows that follow are those that would have followed, to the row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle.dataset import DatasetMeta
from twinkle.errors import ConfigError, DataError
from twinkle_plugin_data.dataloader import DataLoader
from twinkle_plugin_data.dataset import Dataset


def numbers(size):
    return list(range(size))


def batches_of(loader, passes):
    return [batch for _ in range(passes) for batch in loader]


def stopped_after(loader, count):
    """The state of a loader that was left after ``count`` batches, over as many passes as that takes."""
    while count:
        for _ in loader:
            count -= 1
            if not count:
                break
    return json.loads(json.dumps(loader.get_state()))


@given(
    size=st.integers(1, 30), batch_size=st.integers(1, 7), stop=st.integers(0, 40), shuffle=st.booleans(), drop_last=st.booleans()
)
@settings(deadline=None)
def test_what_follows_a_resume_is_what_would_have_followed(size, batch_size, stop, shuffle, drop_last):
    def make():
        return DataLoader(numbers(size), batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, seed=5)

    each = len(make())
    if not each:
        return
    passes = stop // each + 3
    uninterrupted = batches_of(make(), passes)
    resumed = make()
    resumed.resume_from_checkpoint(stopped_after(make(), stop))
    following = batches_of(resumed, 2)
    assert following == uninterrupted[stop : stop + len(following)]
    assert len(following) >= each


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores are fine here
@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_says_what_was_handed_out_not_what_workers_prefetched(workers):
    loader = DataLoader(numbers(40), batch_size=4, num_workers=workers, shuffle=True)
    rest = iter(loader)
    next(rest), next(rest)
    state = loader.get_state()
    following = list(rest)
    assert state["consumed"] == 8
    resumed = DataLoader(numbers(40), batch_size=4, num_workers=workers, shuffle=True)
    resumed.resume_from_checkpoint(state)
    assert list(resumed) == following


def test_encoded_rows_are_the_same_bits_after_a_resume(chat, template):
    rows = [chat("q" * n, "a" * n) for n in range(1, 20)]
    dataset = Dataset(DatasetMeta(data=rows)).set_template(template).encode()

    def bits(batches):
        return [row["input_ids"].tobytes() + row["labels"].tobytes() for batch in batches for row in batch]

    whole = bits(DataLoader(dataset, batch_size=4, shuffle=True))
    resumed = DataLoader(dataset, batch_size=4, shuffle=True)
    resumed.resume_from_checkpoint(8)
    assert bits(resumed) == whole[8:]


def test_a_number_of_rows_resumes_too_over_passes():
    loader = DataLoader(numbers(10), batch_size=4, drop_last=True)
    loader.skip_consumed_samples(12)  # a pass hands out 8
    assert list(loader) == [[4, 5, 6, 7]]
    assert list(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_resuming_at_the_end_of_a_pass_begins_the_next():
    loader = DataLoader(numbers(4), batch_size=2, shuffle=True)
    list(loader)
    resumed = DataLoader(numbers(4), batch_size=2, shuffle=True)
    resumed.resume_from_checkpoint(loader.get_state())
    assert list(resumed) == list(loader)


def test_the_batch_size_may_change():
    loader = DataLoader(numbers(10), batch_size=4)
    next(iter(loader))
    resumed = DataLoader(numbers(10), batch_size=3)
    resumed.resume_from_checkpoint(loader.get_state())
    assert list(resumed) == [[4, 5, 6], [7, 8, 9]]


def test_the_number_of_ranks_may_change(as_rank):
    with as_rank(0, 2):
        loader = DataLoader(numbers(8), batch_size=4)
        assert next(iter(loader)) == [0, 1]
    resumed = DataLoader(numbers(8), batch_size=4)
    resumed.resume_from_checkpoint(loader.get_state())
    assert list(resumed) == [[4, 5, 6, 7]]


def test_len_stays_that_of_a_whole_pass():
    loader = DataLoader(numbers(8), batch_size=2)
    loader.resume_from_checkpoint(4)
    assert (len(loader), len(list(loader))) == (4, 2)


def test_a_state_of_other_rows_is_refused_with_what_differs():
    state = DataLoader(numbers(8), shuffle=True, seed=1).get_state()
    with pytest.raises(ConfigError, match="num_rows was 8, and is 9; seed was 1, and is 2"):
        DataLoader(numbers(9), shuffle=True, seed=2).resume_from_checkpoint(state)


def test_a_state_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="no state of a data loader"):
        DataLoader(numbers(9)).resume_from_checkpoint({"step": 3})


def test_a_negative_number_of_rows_is_refused():
    with pytest.raises(ConfigError, match="can't be negative: -3"):
        DataLoader(list(range(8)), batch_size=2).resume_from_checkpoint(-3)


def test_a_batch_that_could_not_be_had_does_not_count_as_handed_out():
    class Bad:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 2:
                raise DataError("Row 2 is bad.")
            return index

    loader = DataLoader(Bad(), batch_size=2)
    with pytest.raises(DataError):
        list(loader)
    assert loader.get_state()["consumed"] == 2
