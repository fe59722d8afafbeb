"""Where rows come from: memory, files, folders, hubs; subsets, splits and slices."""

from __future__ import annotations

import json
import pickle

import datasets
import pyarrow
import pytest

from twinkle.dataset import DatasetMeta
from twinkle.errors import ConfigError, DataError
from twinkle_plugin_data import files
from twinkle_plugin_data.dataset import Dataset

ROWS = [{"n": 0, "text": "a"}, {"n": 1, "text": "bä"}, {"n": 2, "text": "c\nd"}]


def test_rows_may_be_a_list_of_dictionaries():
    assert list(Dataset(DatasetMeta(data=ROWS))) == ROWS


def test_rows_may_be_a_dictionary_of_columns():
    assert Dataset(DatasetMeta(data={"a": [1, 2], "b": ["x", "y"]}))[1] == {"a": 2, "b": "y"}


def test_rows_may_be_a_datasets_dataset():
    assert list(Dataset(DatasetMeta(data=datasets.Dataset.from_list(ROWS)))) == ROWS


def test_rows_may_come_from_a_function():
    assert list(Dataset(DatasetMeta(data=lambda: ROWS))) == ROWS


@pytest.mark.parametrize(
    "data", [ROWS, {"n": [0, 1, 2]}, datasets.Dataset.from_list(ROWS), lambda: ROWS], ids=["list", "columns", "arrow", "function"]
)
def test_a_slice_holds_for_rows_in_memory_too(data):
    dataset = Dataset(DatasetMeta(data=data, data_slice=range(1, 3)))
    assert [row["n"] for row in dataset] == [1, 2]


def test_a_slice_past_the_end_starts_again_from_the_first_row(write_jsonl):
    dataset = Dataset(DatasetMeta(str(write_jsonl(ROWS)), data_slice=range(7)))
    assert [row["n"] for row in dataset] == [0, 1, 2, 0, 1, 2, 0]


def test_a_slice_may_be_any_iterable_of_indices():
    assert [row["n"] for row in Dataset(DatasetMeta(data=ROWS, data_slice=iter([2, 0, -1])))] == [2, 0, 2]


def test_a_slice_of_no_rows_is_an_error():
    with pytest.raises(DataError, match="no rows to slice"):
        Dataset(DatasetMeta(data=[], data_slice=range(3)))


@pytest.mark.parametrize("data_slice", [3, slice(3), "012", [0.5], [[1]]])
def test_a_slice_of_anything_but_row_numbers_is_an_error(data_slice):
    with pytest.raises(ConfigError, match="data_slice has to be row numbers"):
        Dataset(DatasetMeta(data=ROWS, data_slice=data_slice))


def test_the_reference_alone_will_do(write_jsonl):
    assert list(Dataset(str(write_jsonl(ROWS)))) == ROWS


def test_changing_a_row_changes_neither_the_data_set_nor_what_it_was_made_of():
    mine = [{"messages": [{"role": "user", "content": "hi"}]}]
    dataset = Dataset(DatasetMeta(data=mine))
    dataset[0]["messages"][0]["content"] = "changed"
    assert dataset[0] == mine[0] == {"messages": [{"role": "user", "content": "hi"}]}


def test_an_entry_that_is_no_dictionary_is_named():
    with pytest.raises(DataError, match="Row 1 of 'data in memory' is no dictionary, but int"):
        Dataset(DatasetMeta(data=[{"a": 1}, 2]))


def test_columns_of_different_lengths_are_named():
    with pytest.raises(DataError, match=r"differ in length.*'a': 1.*'b': 2"):
        Dataset(DatasetMeta(data={"a": [1], "b": [1, 2]}))


def test_a_column_of_one_value_is_named():
    with pytest.raises(DataError, match=r"Column 'b' of 'data in memory' holds 7; it needs one value for each row"):
        Dataset(DatasetMeta(data={"a": [1], "b": 7}))


def test_something_that_holds_no_rows_is_an_error():
    with pytest.raises(DataError, match="can't be made of int"):
        Dataset(DatasetMeta(data=3))


def test_a_meta_that_names_nothing_is_an_error():
    with pytest.raises(DataError, match="needs a dataset_id"):
        Dataset(DatasetMeta())


# -- files


def write(path, suffix):
    table = datasets.Dataset.from_list(ROWS)
    match suffix:
        case ".jsonl":
            path.write_text("\n".join(json.dumps(row) for row in ROWS))
        case ".json":
            path.write_text(json.dumps(ROWS, indent=1))
        case ".csv":
            table.to_pandas().to_csv(path, index=False)
        case ".tsv":
            table.to_pandas().to_csv(path, index=False, sep="\t")
        case ".parquet":
            table.to_parquet(path)
        case ".arrow":
            with datasets.arrow_writer.ArrowWriter(path=str(path)) as writer:
                writer.write_table(table.data.table)
                writer.finalize()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write(path, suffix)
    assert list(Dataset(str(path))) == ROWS


def test_arrow_s_file_format_is_read_as_its_stream_is(tmp_path):
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_file(str(tmp_path / "rows.arrow"), table.schema) as file:
        file.write_table(table)
    assert list(Dataset(tmp_path / "rows.arrow")) == ROWS


def test_a_cell_of_csv_may_be_megabytes_long(tmp_path):
    (tmp_path / "rows.csv").write_text("text,n\n" + "x" * 3_000_000 + ",1\n")
    assert len(Dataset(tmp_path / "rows.csv")[0]["text"]) == 3_000_000


@pytest.mark.parametrize(("content", "message"), [(b"q,q\n1,2\n", "q"), (b"q,a\n\xe9,2\n", "column 'q' isn't UTF-8")])
def test_csv_that_gives_no_rows_of_text_is_an_error_that_names_the_file(tmp_path, content, message):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"rows.csv can't be read as .csv.*{message}"):
        Dataset(tmp_path / "rows.csv")


def test_text_files_give_a_row_a_line(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("one\ntwo\n")
    assert list(Dataset(str(path))) == [{"text": "one"}, {"text": "two"}]


def test_a_row_of_json_lines_has_exactly_the_fields_of_its_line(write_jsonl):
    rows = [{"a": 1}, {"b": {"c": [1]}}, {"b": "text", "a": None}]
    assert list(Dataset(str(write_jsonl(rows)))) == rows


def test_blank_lines_byte_order_marks_and_windows_line_ends_are_no_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n{"a": 2}')
    assert list(Dataset(str(path))) == [{"a": 1}, {"a": 2}]


def test_an_empty_file_has_no_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.touch()
    assert len(Dataset(str(path))) == 0


def test_a_broken_line_is_named_by_its_number_in_the_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match=r"Line 3 of .*rows.jsonl is no valid JSON"):
        list(Dataset(str(path)))


def test_a_line_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n[1, 2]\n')
    with pytest.raises(DataError, match=r"Line 2 of .* is no JSON object, but list"):
        Dataset(str(path))[1]


@pytest.mark.parametrize(
    "content", ['{"a": 1}\n{"a": 2}\n', '[{"a": 1}, {"a": 2}]', '{"a": [1, 2]}', '{"version": 1, "data": [{"a": 1}, {"a": 2}]}']
)
def test_json_files_may_hold_lines_a_list_columns_or_a_list_in_an_envelope(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert list(Dataset(str(path))) == [{"a": 1}, {"a": 2}]


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"rows.parquet can't be read as .parquet"):
        Dataset(str(path))


def test_a_file_of_another_kind_is_refused_with_the_kinds_that_can_be_read(tmp_path):
    path = tmp_path / "rows.pkl"
    path.touch()
    with pytest.raises(DataError, match=r"rows.pkl is no data file.*\.jsonl"):
        Dataset(str(path))


def test_nulls_that_arrow_put_into_messages_are_absent_again():
    rows = [
        {"messages": [{"role": "user", "content": "a"}], "score": None},
        {"messages": [{"role": "assistant", "content": "b", "name": "x"}], "score": 1},
    ]
    assert list(Dataset(DatasetMeta(data=datasets.Dataset.from_list(rows)))) == rows


# -- folders


def folder_with(tmp_path, *names):
    for name in names:
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"from": name}) + "\n")
    return tmp_path / "repo"


def origins(folder, **meta):
    return [row["from"] for row in Dataset(DatasetMeta(str(folder), **meta))]


def test_a_folder_gives_the_files_of_the_split(tmp_path):
    folder = folder_with(tmp_path, "data/train-00.jsonl", "data/train-01.jsonl", "data/test-00.jsonl")
    assert origins(folder) == ["data/train-00.jsonl", "data/train-01.jsonl"]
    assert origins(folder, split="test") == ["data/test-00.jsonl"]


def test_a_folder_whose_files_name_no_split_is_all_training_data(tmp_path):
    assert origins(folder_with(tmp_path, "a.jsonl", "b/c.jsonl")) == ["a.jsonl", "b/c.jsonl"]


def test_validation_goes_by_several_names(tmp_path):
    assert origins(folder_with(tmp_path, "train.jsonl", "dev.jsonl"), split="validation") == ["dev.jsonl"]


def test_a_split_that_is_missing_is_an_error_with_those_that_are_there(tmp_path):
    with pytest.raises(DataError, match=r"no split 'test'. It has: 'train', 'validation'"):
        origins(folder_with(tmp_path, "train.jsonl", "dev.jsonl"), split="test")


def test_a_subset_is_found_by_folder_or_file_name(tmp_path):
    folder = folder_with(tmp_path, "main/train.jsonl", "socratic/train.jsonl")
    assert origins(folder, subset_name="socratic") == ["socratic/train.jsonl"]


def test_a_subset_that_is_missing_is_an_error_with_the_files(tmp_path):
    with pytest.raises(DataError, match=r"no subset 'other'.*main/train.jsonl"):
        origins(folder_with(tmp_path, "main/train.jsonl"), subset_name="other")


def test_the_card_says_which_files_belong_to_subset_and_split(tmp_path):
    folder = folder_with(tmp_path, "x/one.jsonl", "x/two.jsonl", "y/three.jsonl")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: x/*.jsonl\n"
        "- config_name: other\n  data_files: y/three.jsonl\n---\n# Card\n"
    )
    assert origins(folder) == ["x/one.jsonl", "x/two.jsonl"]
    assert origins(folder, subset_name="other") == ["y/three.jsonl"]
    with pytest.raises(DataError, match=r"no subset 'none'. It has: default, other"):
        origins(folder, subset_name="none")


def test_metadata_and_hidden_files_are_no_data(tmp_path):
    folder = folder_with(tmp_path, "train.jsonl", ".git/x.jsonl", "dataset_infos.json", "requirements.txt")
    assert origins(folder) == ["train.jsonl"]


def test_what_save_to_disk_left_is_read(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert list(Dataset(str(tmp_path / "saved"))) == ROWS


def test_a_folder_of_save_to_disk_that_can_not_be_loaded_is_named(tmp_path):
    datasets.Dataset.from_list([]).save_to_disk(tmp_path / "none")
    with pytest.raises(DataError, match="none can't be read as what save_to_disk leaves"):
        Dataset(tmp_path / "none")


def test_a_saved_dictionary_of_splits_is_read(tmp_path):
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert list(Dataset(DatasetMeta(str(tmp_path / "saved"), split="test"))) == ROWS
    with pytest.raises(DataError, match=r"no split 'train'. It has: 'test'"):
        Dataset(str(tmp_path / "saved"))


def test_a_folder_without_data_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no data file"):
        Dataset(str(tmp_path))


def test_a_hub_reference_is_fetched_from_its_hub(tmp_path):
    folder = folder_with(tmp_path, "train.jsonl")
    assert origins(f"file://{folder}") == ["train.jsonl"]


def test_rows_say_where_they_came_from_through_slices_and_files(tmp_path):
    folder = folder_with(tmp_path, "a.jsonl", "b.jsonl")
    dataset = Dataset(DatasetMeta(str(folder), data_slice=[1, 0]))
    assert dataset.where(0) == f"row 0 of '{folder}/b.jsonl'"


def test_a_dictionary_of_splits_gives_the_split():
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])})
    assert list(Dataset(DatasetMeta(data=splits, split="test"))) == ROWS[:1]
    with pytest.raises(DataError, match=r"'data in memory' has no split 'dev'. It has: 'train', 'test'"):
        Dataset(DatasetMeta(data=splits, split="dev"))


def test_rows_without_a_length_are_refused():
    with pytest.raises(DataError, match="can't be made of IterableDataset"):
        Dataset(DatasetMeta(data=datasets.Dataset.from_list(ROWS).to_iterable_dataset()))


def test_an_option_that_there_is_not_is_an_error_with_those_that_are(write_jsonl):
    with pytest.raises(ConfigError, match=r"takes no streaming. .* revision"):
        Dataset(str(write_jsonl(ROWS)), streaming=True)


def test_a_large_file_is_scanned_in_blocks(write_jsonl, monkeypatch):
    monkeypatch.setattr(files, "_SCAN_BLOCK", 7)
    assert list(Dataset(str(write_jsonl(ROWS)))) == ROWS


def test_a_data_set_of_lines_can_be_sent_to_another_process(write_jsonl):
    dataset = Dataset(str(write_jsonl(ROWS)))
    assert list(dataset) == list(pickle.loads(pickle.dumps(dataset)))
