"""run_ranks: real processes, each a rank."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from twinkle.errors import ConfigError
from twinkle.runtime import current_runtime
from twinkle.testing.processes import RankError, run_ranks


class Parcel:
    """Something of this module's own, which has to pickle in both directions."""

    def __init__(self, content: int) -> None:
        self.content = content


def which_rank() -> tuple[int, int, int]:
    runtime = current_runtime()
    return runtime.rank, runtime.world_size, int(os.environ["LOCAL_RANK"])


def summed(parcel: Parcel) -> Parcel:
    import torch

    runtime = current_runtime()
    return Parcel(int(runtime.all_reduce(torch.tensor(parcel.content + runtime.rank))))


def raise_on_rank_1() -> None:
    runtime = current_runtime()
    if runtime.rank == 1:
        raise ZeroDivisionError("the second rank can't go on")
    runtime.barrier()


def vanish() -> None:
    os._exit(3)


def sleep_long() -> None:
    time.sleep(60)


def give_what_cannot_be_pickled() -> object:
    return lambda: None


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_each_rank_knows_its_place_and_results_are_in_order_of_rank():
    assert run_ranks(which_rank, 3) == [(0, 3, 0), (1, 3, 1), (2, 3, 2)]


def test_ranks_can_talk_and_classes_of_the_test_module_travel():
    assert [parcel.content for parcel in run_ranks(summed, 2, Parcel(10))] == [21, 21]


def test_a_rank_that_raises_is_shown_with_its_traceback_and_the_waiting_ones_are_ended():
    start = time.monotonic()
    with pytest.raises(RankError, match=r"Rank 1 raised(.|\n)*raise_on_rank_1(.|\n)*the second rank can't go on"):
        run_ranks(raise_on_rank_1, 2, timeout=60)
    assert time.monotonic() - start < 50


def test_a_rank_that_dies_is_named_with_its_exit_code():
    with pytest.raises(RankError, match=r"Rank 0 died without a word \(exit code 3\)"):
        run_ranks(vanish, 1)


def test_ranks_that_take_too_long_are_named_and_ended():
    start = time.monotonic()
    with pytest.raises(RankError, match=r"After 1 s, rank\(s\) 0, 1 of 2 were still running"):
        run_ranks(sleep_long, 2, timeout=1)
    assert time.monotonic() - start < 30


def test_a_result_that_does_not_pickle_is_an_error_that_says_so():
    with pytest.raises(RankError, match="result of rank 0 can't be pickled"):
        run_ranks(give_what_cannot_be_pickled, 1)


def test_variables_are_given_to_the_ranks_and_not_to_this_process():
    assert run_ranks(variable, 1, "TWINKLE_TEST_VARIABLE", environ={"TWINKLE_TEST_VARIABLE": "x"}) == ["x"]
    assert "TWINKLE_TEST_VARIABLE" not in os.environ


def test_the_environment_of_now_is_what_ranks_see(monkeypatch):
    run_ranks(variable, 1, "TWINKLE_TEST_LATER")
    monkeypatch.setenv("TWINKLE_TEST_LATER", "now")
    assert run_ranks(variable, 1, "TWINKLE_TEST_LATER") == ["now"]


@pytest.mark.parametrize("function", [lambda: 1, partial(which_rank), Parcel(1).__init__])
def test_a_function_that_is_not_at_the_top_level_of_a_module_is_refused(function):
    with pytest.raises(ConfigError, match="top level of a module"):
        run_ranks(function, 1)


def test_no_ranks_at_all_are_refused():
    with pytest.raises(ConfigError, match="world_size"):
        run_ranks(which_rank, 0)
