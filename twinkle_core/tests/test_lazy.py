"""LazyCollect: a result that behaves as its value, fetched once, when somebody looks."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest

from twinkle.lazy import LazyCollect, value_of


class Fetch:
    """A value far away that counts how often it was fetched."""

    def __init__(self, value):
        self.value = value
        self.times = 0

    def __call__(self):
        self.times += 1
        return self.value


def test_nothing_is_fetched_until_somebody_looks():
    fetch = Fetch([1])
    lazy = LazyCollect(fetch)
    assert repr(lazy) == "LazyCollect(not fetched yet)"
    assert not lazy.is_fetched
    assert fetch.times == 0


def test_it_is_fetched_once():
    fetch = Fetch([1, 2])
    lazy = LazyCollect(fetch)
    assert (lazy(), len(lazy), list(lazy)) == ([1, 2], 2, [1, 2])
    assert fetch.times == 1
    assert repr(lazy) == "LazyCollect([1, 2])"


@pytest.mark.parametrize(
    ("look", "value", "expected"),
    [
        (lambda lazy: lazy(), [1], [1]),
        (list, [1, 2], [1, 2]),
        (len, [1, 2], 2),
        (lambda lazy: lazy[1], [1, 2], 2),
        (lambda lazy: lazy["loss"], {"loss": 0.5}, 0.5),
        (lambda lazy: dict(**lazy()), {"loss": 0.5}, {"loss": 0.5}),
        (lambda lazy: 2 in lazy, [1, 2], True),
        (bool, [], False),
        (bool, [0], True),
        (lambda lazy: lazy == [1], [1], True),
        (lambda lazy: {lazy: "x"}[LazyCollect(lambda: "key")], "key", "x"),
        (float, 0.5, 0.5),
        (int, 2, 2),
        (lambda lazy: lazy + 1, 0.5, 1.5),
        (lambda lazy: 1 + lazy, 0.5, 1.5),
        (lambda lazy: sum([lazy, lazy]), 0.5, 1.0),
        (lambda lazy: lazy + LazyCollect(lambda: 1), 0.5, 1.5),
        (lambda lazy: (lazy - 1, 1 - lazy), 0.25, (-0.75, 0.75)),
        (lambda lazy: (lazy * 4, 4 * lazy), 0.25, (1.0, 1.0)),
        (lambda lazy: (lazy / 4, 4 / lazy), 0.5, (0.125, 8.0)),
        (lambda lazy: (-lazy, round(lazy, 1), round(lazy)), 0.25, (-0.25, 0.2, 0)),
        (lambda lazy: (lazy < 1, lazy <= 0.5, lazy > 1, lazy >= 0.5), 0.5, (True, True, False, True)),
        (lambda lazy: lazy + LazyCollect(lambda: [3]), [1, 2], [1, 2, 3]),
        (lambda lazy: lazy / "file", Path("folder"), Path("folder/file")),
        (os.fspath, Path("folder"), "folder"),
        (str, 0.5, "0.5"),
        (lambda lazy: f"{lazy:.2f}", 0.5, "0.50"),
        (lambda lazy: list(lazy.items()), {"a": 1}, [("a", 1)]),
        (lambda lazy: pickle.loads(pickle.dumps(lazy)), [1, 2], [1, 2]),
        (copy.copy, [1, 2], [1, 2]),
        (copy.deepcopy, [1, 2], [1, 2]),
        (value_of, [1, 2], [1, 2]),
    ],
)
def test_looking_at_it_gives_what_the_value_would(look, value, expected):
    result = look(LazyCollect(Fetch(value)))
    assert result == expected
    assert not isinstance(result, LazyCollect)


def test_none_is_a_value_like_any_other():
    fetch = Fetch(None)
    lazy = LazyCollect(fetch)
    assert lazy() is None
    assert lazy() is None
    assert fetch.times == 1


def test_a_failed_fetch_raises_and_the_next_look_tries_again():
    answers = iter([OSError("the worker is away"), "here"])

    def fetch():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    lazy = LazyCollect(fetch)
    with pytest.raises(OSError, match="the worker is away"):
        lazy()
    assert lazy() == "here"


def test_an_attribute_that_the_value_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_the_sort"):
        _ = LazyCollect(Fetch([])).nothing_of_the_sort


def test_other_values_stand_for_themselves():
    assert value_of(3) == 3
