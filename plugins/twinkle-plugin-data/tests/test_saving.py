"""save_as and cast_column: what is written is what is read, and what was there isn't lost."""

from __future__ import annotations

import datasets
import pytest

from twinkle.dataset import DatasetMeta
from twinkle.errors import DataError
from twinkle_plugin_data.dataset import Dataset

ROWS = [{"n": 1, "text": "ä\nb"}, {"n": 2, "text": "c"}]


def build(rows=ROWS):
    return Dataset(DatasetMeta(data=rows))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "folder"])
def test_what_was_saved_is_read_again(tmp_path, name):
    path = build().save_as(tmp_path / "new" / name)
    assert list(Dataset(str(path))) == ROWS


def test_trajectories_that_differ_in_fields_survive_as_json_lines(tmp_path, chat):
    rows = [chat(), chat(user_data={"x": [1]}), {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}]
    assert list(Dataset(str(build(rows).save_as(tmp_path / "rows.jsonl")))) == rows


def test_messages_survive_in_parquet(tmp_path, chat):
    rows = [chat(), chat("x", "y")]
    assert list(Dataset(str(build(rows).save_as(tmp_path / "rows.parquet")))) == rows


def test_encoded_rows_are_saved_as_numbers(tmp_path, chat, template):
    path = build([chat("a", "b")]).set_template(template).encode().save_as(tmp_path / "rows.jsonl")
    assert list(Dataset(str(path))) == [{"input_ids": [97, 98], "labels": [-100, 98]}]


def test_no_rows_are_saved_as_none(tmp_path):
    assert [len(Dataset(str(build([]).save_as(tmp_path / f"rows{suffix}")))) for suffix in (".jsonl", ".json")] == [0, 0]


def test_saving_replaces_what_was_there_and_leaves_nothing_else(tmp_path):
    for rows in (ROWS, ROWS[:1]):
        build(rows).save_as(tmp_path / "rows.jsonl")
        build(rows).save_as(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "rows.jsonl"]
    assert list(Dataset(str(tmp_path / "folder"))) == list(Dataset(str(tmp_path / "rows.jsonl"))) == ROWS[:1]


def test_saving_that_fails_leaves_what_was_there(tmp_path):
    path = build().save_as(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"Save as \.jsonl"):
        build([{"n": 1}, {"n": "text"}]).save_as(path)
    assert list(Dataset(str(path))) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_nested_rows_do_not_fit_csv(tmp_path, chat):
    with pytest.raises(DataError, match=r"no nested values.*Save as \.jsonl"):
        build([chat()]).save_as(tmp_path / "rows.csv")


def test_what_json_can_not_hold_is_an_error_with_a_format_that_can(tmp_path):
    with pytest.raises(DataError, match=r"can't be saved as .jsonl: .*bytes.*Save as .parquet"):
        Dataset(DatasetMeta(data=[{"picture": b"x"}])).save_as(tmp_path / "rows.jsonl")


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"can't be saved as \.pkl"):
        build().save_as(tmp_path / "rows.pkl")


@pytest.mark.parametrize("feature", ["string", datasets.Value("string")], ids=["name", "feature"])
def test_a_column_can_be_cast(feature):
    assert [row["n"] for row in build().cast_column("n", feature)] == ["1", "2"]


def test_casting_names_the_column_that_is_missing_and_those_that_are_there():
    with pytest.raises(DataError, match=r"'data in memory' has no column 'm'. Its columns: n, text"):
        build().cast_column("m", "string")


def test_a_value_that_does_not_fit_the_type_is_an_error():
    with pytest.raises(DataError, match=r"Column 'text' of .* can't be cast to int64"):
        build().cast_column("text", "int64")
