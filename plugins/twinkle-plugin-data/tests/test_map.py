"""map and filter: what they take, what they give, and what they say when a row doesn't fit."""

from __future__ import annotations

import pytest

from twinkle.dataset import DatasetMeta
from twinkle.errors import ComponentNotFoundError, ConfigError, DataError
from twinkle.preprocessor import Filter, Preprocessor
from twinkle_plugin_data.dataset import Dataset

ROWS = [{"n": n} for n in range(5)]


class Doubled(Preprocessor):
    def __init__(self, by: int = 2) -> None:
        self.by = by

    def preprocess(self, row):
        return {"n": row["n"] * self.by}


class Even(Filter):
    def __call__(self, row):
        return row["n"] % 2 == 0


@pytest.fixture
def dataset():
    return Dataset(DatasetMeta("", data=ROWS))


def numbers(dataset):
    return [row["n"] for row in dataset]


def test_a_function_is_called_with_each_row(dataset):
    assert numbers(dataset.map(lambda row: {"n": row["n"] + 1})) == [1, 2, 3, 4, 5]


def test_a_batched_function_is_called_with_lists_of_rows(dataset):
    calls = []

    def double(rows):
        calls.append(len(rows))
        return [{"n": row["n"] * 2} for row in rows]

    assert numbers(dataset.map(double, batched=True)) == [0, 2, 4, 6, 8]
    assert calls == [5]


@pytest.mark.parametrize("given", [Doubled(), Doubled], ids=["instance", "class"])
def test_a_preprocessor_may_be_an_instance_or_a_class(dataset, given):
    assert numbers(dataset.map(given)) == [0, 2, 4, 6, 8]


def test_a_class_is_built_with_the_configuration(dataset):
    assert numbers(dataset.map(Doubled, by=3)) == [0, 3, 6, 9, 12]


def test_a_name_is_looked_up_among_installed_plugins():
    dataset = Dataset(DatasetMeta(data=[{"query": "who?", "response": "{{NAME}} by {{AUTHOR}}", "tag": "en"}]))
    dataset.map("SelfCognitionProcessor", model_name="Ada", model_author="Grace")
    assert dataset[0]["messages"][1]["content"] == "Ada by Grace"


def test_a_name_that_nobody_has_is_an_error_with_the_nearest(dataset):
    with pytest.raises(ComponentNotFoundError, match="SelfCognitionProcessor"):
        dataset.map("SelfCognitionProcesor")


def test_none_drops_the_row(dataset):
    assert numbers(dataset.map(lambda row: row if row["n"] > 2 else None)) == [3, 4]


def test_rows_may_get_different_fields(dataset):
    dataset.map(lambda row: {"n": row["n"], "odd": True} if row["n"] % 2 else row)
    assert dataset[:2] == [{"n": 0}, {"n": 1, "odd": True}]


def test_the_rows_that_a_data_set_was_made_of_stay_as_they_were():
    mine = [{"messages": [{"role": "user", "content": "a"}]}]

    def spoil(row):
        row["messages"][0]["content"] = "spoiled"
        return row

    dataset = Dataset(DatasetMeta(data=mine)).map(spoil)
    assert dataset[0]["messages"][0]["content"] == "spoiled"
    assert mine == [{"messages": [{"role": "user", "content": "a"}]}]


def test_a_missing_field_is_named_with_the_row_and_its_fields(write_jsonl):
    path = write_jsonl([{"question": "a"}, {"query": "b", "tag": 1}])
    with pytest.raises(
        DataError, match=rf"Row 1 of '{path}' has no field 'question', which <lambda> needs. Its fields: query, tag."
    ):
        Dataset(str(path)).map(lambda row: {"messages": row["question"]})


def test_a_missing_field_of_a_preprocessor_is_named_too(write_jsonl):
    path = write_jsonl([{"question": "a", "answer": "#### 1"}, {"query": "b"}])
    with pytest.raises(
        DataError, match=rf"GSM8KProcessor failed on row 1 of '{path}': there is no field 'question'. Its fields: query."
    ):
        Dataset(str(path)).map("GSM8KProcessor")


def test_the_row_is_the_one_of_the_source_after_slices_and_filters(write_jsonl):
    path = write_jsonl([{"n": 0}, {"n": 1}, {}, {"n": 3}])
    dataset = Dataset(DatasetMeta(str(path), data_slice=[3, 0, 2])).filter(lambda row: row.get("n") != 0)
    with pytest.raises(DataError, match=rf"Row 2 of '{path}'"):
        dataset.map(lambda row: {"n": row["n"]})


def test_another_error_is_told_with_the_row(dataset):
    with pytest.raises(
        DataError, match=r"<lambda> failed on row 0 of .*ZeroDivisionError: division by zero. Its fields: n."
    ) as caught:
        dataset.map(lambda row: {"n": 1 / row["n"]})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_result_that_is_no_dictionary_is_an_error(dataset):
    with pytest.raises(DataError, match="returned int for row 0"):
        dataset.map(lambda row: row["n"])


def test_a_batched_function_that_loses_rows_is_an_error(dataset):
    with pytest.raises(DataError, match="was given 5 rows and returned 4"):
        dataset.map(lambda rows: rows[1:], batched=True)


def test_a_map_that_fails_leaves_the_data_set_as_it_was(dataset):
    with pytest.raises(DataError):
        dataset.map(lambda row: {"n": 1 // (row["n"] - 3)})
    assert list(dataset) == ROWS


@pytest.mark.parametrize("given", [Even(), Even, lambda row: row["n"] % 2 == 0], ids=["instance", "class", "function"])
def test_a_filter_keeps_the_rows_for_which_it_is_true(dataset, given):
    assert numbers(dataset.filter(given)) == [0, 2, 4]


def test_a_filter_may_be_a_name(dataset):
    assert numbers(dataset.filter("ChoiceFilter", field="n", choices=[1, 3])) == [1, 3]


def test_a_filter_that_fails_names_the_row(dataset):
    with pytest.raises(DataError, match=r"Row 0 of .* has no field 'm'"):
        dataset.filter(lambda row: row["m"])


def test_one_source_of_several_can_be_mapped_alone():
    first, second = DatasetMeta(data=[{"n": 1}]), DatasetMeta(data=[{"m": 2}])
    dataset = Dataset(first).add_dataset(second)
    dataset.map(lambda row: {"n": row["m"]}, dataset_meta=second)
    assert numbers(dataset) == [1, 2]


def test_one_source_can_be_named_by_an_equal_meta_or_its_id(write_jsonl):
    path = str(write_jsonl([{"m": 2}]))
    dataset = Dataset(DatasetMeta(data=[{"n": 1}])).add_dataset(DatasetMeta(path))
    dataset.map(lambda row: {"n": row["m"]}, dataset_meta=DatasetMeta(path))
    dataset.map(lambda row: {"n": row["n"] + 1}, dataset_meta=path)
    assert numbers(dataset) == [1, 3]


def test_a_source_that_was_never_added_is_an_error(dataset):
    with pytest.raises(ConfigError, match="holds nothing from 'other'"):
        dataset.map(Doubled, dataset_meta="other")


def test_configuration_for_something_already_built_is_an_error(dataset):
    with pytest.raises(ConfigError, match="already built"):
        dataset.map(Doubled(), by=3)
