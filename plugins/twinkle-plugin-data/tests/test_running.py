"""How steps are run: in several processes where asked, with progress where somebody watches, telling what was dropped."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys

import numpy as np
import pytest

from twinkle.dataset import DatasetMeta
from twinkle.errors import ConfigError, DataError
from twinkle_plugin_data import running
from twinkle_plugin_data.dataset import Dataset
from twinkle_plugin_data.parallel import can_fork, ordered_results

needs_fork = pytest.mark.skipif(not can_fork(), reason="this platform doesn't fork processes")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(running, "CHUNK", 4)
    monkeypatch.setattr(running, "FEWEST_SHARED_ROWS", 1)


@pytest.fixture
def build(chat, make_template):
    def make(count=30, **options):
        rows = [chat("q" * (n % 9 + 1), "a", **({"user_data": {"n": n}} if n % 3 else {})) for n in range(count)]
        return Dataset(DatasetMeta(data=rows)).set_template(make_template(**options))

    return make


@needs_fork
@pytest.mark.parametrize(
    "options", [{}, {"max_length": 4, "truncation_strategy": "split"}, {"max_length": 4, "truncation_strategy": "delete"}]
)
def test_several_processes_give_the_same_rows_in_the_same_order(build, small_chunks, options):
    one, three = build(**options).encode(), build(**options).encode(num_proc=3)
    assert len(one) == len(three)
    for index, (mine, other) in enumerate(zip(one, three, strict=True)):
        assert mine.keys() == other.keys()
        assert mine.get("user_data") == other.get("user_data")
        np.testing.assert_array_equal(mine["input_ids"], other["input_ids"])
        assert one.where(index) == three.where(index)


@needs_fork
def test_an_error_in_another_process_names_the_row(build, small_chunks):
    dataset = build(max_length=9)
    with pytest.raises(DataError, match=r"can't encode row 8 of .* 10 tokens"):
        dataset.encode(num_proc=2)
    assert "messages" in dataset[0]


@needs_fork
def test_a_few_rows_start_no_process(build, template):
    dataset = build(5).set_template(template).encode(num_proc=4)
    assert (len(dataset), template.encoded) == (5, 5)


@needs_fork
def test_a_process_that_dies_is_an_error_not_a_hang():
    def die(piece):
        if piece == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return piece

    with pytest.raises(RuntimeError, match="num_proc died"):
        list(ordered_results(die, 4, 2))


@needs_fork
def test_an_error_of_another_kind_is_told_with_its_kind():
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: .* by zero"):
        list(ordered_results(lambda piece: 1 // piece, 4, 2))


def test_no_processes_at_all_is_an_error(build):
    with pytest.raises(ConfigError, match="num_proc has to be at least 1"):
        build().encode(num_proc=0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "patience", "shown"), [(Terminal, -1, True), (Terminal, 60, False), (io.StringIO, -1, False)])
def test_long_work_shows_progress_where_somebody_watches(build, small_chunks, monkeypatch, stream, patience, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(running, "_PATIENCE", patience)
    build().encode()
    assert ("encode" in sys.stderr.getvalue()) is shown


def test_how_many_rows_were_dropped_is_told(build, caplog):
    caplog.set_level(logging.INFO)
    build(30).map(lambda row: row if len(row["messages"][0]["content"]) > 1 else None)
    build(30, max_length=4, truncation_strategy="delete").encode()
    assert [record.getMessage() for record in caplog.records] == ["map dropped 4 of 30 rows", "encode dropped 18 of 30 rows"]
