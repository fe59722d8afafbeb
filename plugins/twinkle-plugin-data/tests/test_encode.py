"""encode and check: features, what is carried along, and errors that name the row."""

from __future__ import annotations

import numpy as np
import pytest

from twinkle.dataset import DatasetMeta
from twinkle.errors import ConfigError, DataError
from twinkle_plugin_data.dataset import Dataset


@pytest.fixture
def make(chat, template):
    def build(rows, template=template):
        return Dataset(DatasetMeta(data=rows)).set_template(template)

    return build


def test_rows_become_token_ids_and_labels(make, chat):
    row = make([chat("ab", "c")]).encode()[0]
    np.testing.assert_array_equal(row["input_ids"], [97, 98, 99])
    np.testing.assert_array_equal(row["labels"], [-100, -100, 99])
    assert row["input_ids"].dtype == row["labels"].dtype == np.int32


def test_every_row_is_what_the_template_makes_of_it(make, chat, template):
    rows = [chat("q" * (n % 50), "a" * (n % 7)) for n in range(2500)]
    dataset = make(rows).encode()
    assert len(dataset) == 2500
    for index in (0, 1, 1023, 1024, 2499):
        np.testing.assert_array_equal(dataset[index]["input_ids"], template.encode(rows[index])["input_ids"])


def test_each_row_is_encoded_once(make, chat, template):
    make([chat()] * 30).encode()
    assert template.encoded == 30


def test_user_data_and_other_columns_are_carried_also_where_rows_differ(make, chat):
    dataset = make([chat(user_data={"truth": "1"}), chat(source="web", score=0.5), chat()]).encode()
    extras = [{name: row[name] for name in row if name not in ("input_ids", "labels")} for row in dataset]
    assert extras == [{"user_data": {"truth": "1"}}, {"source": "web", "score": 0.5}, {}]


def test_fields_that_only_some_features_have_stay_with_those(make, chat, template):
    class Weighted(type(template)):
        def _features(self, index, row, add_generation_prompt):
            (feature,) = super()._features(index, row, add_generation_prompt)
            if "weight" in row:
                feature["loss_weights"] = [row["weight"]] * len(feature["input_ids"])
            return [feature]

    rows = list(make([chat(), chat(weight=0.25), chat()], Weighted()).encode())
    assert ["loss_weights" in row for row in rows] == [False, True, False]
    np.testing.assert_array_equal(rows[1]["loss_weights"], np.full(4, 0.25, np.float32))


def test_a_generation_prompt_is_passed_on(make, chat):
    assert make([chat("a", "b")]).encode(add_generation_prompt=True)[0]["input_ids"][-1] == ord(">")


def test_delete_drops_long_rows_and_split_cuts_them(make, chat, make_template):
    rows = [chat("ab", "c"), chat("a" * 6, "bbbb"), chat("x", "y")]
    deleted = make(rows, make_template(5, "delete")).encode()
    assert [len(row["input_ids"]) for row in deleted] == [3, 2]
    split = make(rows, make_template(5, "split")).encode()
    assert [len(row["input_ids"]) for row in split] == [3, 5, 5, 2]
    assert split.where(2) == split.where(1) == "row 1 of 'data in memory'"


def test_all_rows_deleted_leaves_an_empty_data_set(make, chat, make_template):
    assert len(make([chat("abc", "d")], make_template(2, "delete")).encode()) == 0


def test_a_row_too_long_is_named_with_the_way_out(write_jsonl, chat, make_template):
    path = write_jsonl([chat(), chat(), chat("a" * 60, "b")])
    dataset = Dataset(str(path)).set_template(make_template(50))
    with pytest.raises(
        DataError, match=rf"CharTemplate can't encode row 2 of '{path}': 61 tokens.*max_length=50.*truncation_strategy"
    ):
        dataset.encode()
    assert "messages" in dataset[0]  # as it was


def test_a_row_without_messages_is_named_with_its_fields_and_the_way_out(make, chat):
    with pytest.raises(DataError, match=r"Row 1 of .* has no field 'messages'.* Its fields: query, answer. .*dataset.map\("):
        make([chat(), {"query": "a", "answer": "b"}]).encode()


@pytest.mark.parametrize("messages", [None, [], "text"])
def test_messages_that_are_no_list_are_named(make, messages):
    with pytest.raises(DataError, match=r"Row 0 of .* has no messages"):
        make([{"messages": messages}]).encode()


def test_encoding_twice_is_an_error_that_says_so(make, chat):
    with pytest.raises(DataError, match="encoded already"):
        make([chat()]).encode().encode()


def test_encoding_without_a_template_is_an_error_that_says_what_to_do(chat):
    with pytest.raises(ConfigError, match="set_template"):
        Dataset(DatasetMeta(data=[chat()])).encode()


def test_a_template_that_gives_no_flat_numbers_is_an_error(make, chat, template):
    class Nested(type(template)):
        def batch_encode(self, trajectories, **kwargs):
            return [[{"input_ids": np.zeros((2, 2), int)}] for _ in trajectories]

    with pytest.raises(DataError, match="'input_ids' has to be a flat sequence"):
        make([chat()], Nested()).encode()


def test_token_ids_beyond_32_bits_are_an_error_not_a_wrong_number(make, chat, template):
    class Huge(type(template)):
        def batch_encode(self, trajectories, **kwargs):
            return [[{"input_ids": np.array([2**40])}] for _ in trajectories]

    with pytest.raises(DataError, match="32 bits"):
        make([chat()], Huge()).encode()


def test_check_drops_rows_that_cannot_be_encoded(make, chat, make_template):
    dataset = make([chat("ab", "c"), chat("a" * 60, "b"), chat("d", "e")], make_template(50)).check()
    assert [row["messages"][0]["content"] for row in dataset] == ["ab", "d"]


def test_arrays_that_are_handed_out_are_the_callers_own(make, chat):
    dataset = make([chat("ab", "c")]).encode()
    dataset[0]["input_ids"][:] = 0
    assert dataset[0]["input_ids"].tolist() == [97, 98, 99]


def test_filtering_encoded_rows_keeps_features(make, chat):
    dataset = make([chat("a" * n, "b") for n in range(1, 6)]).encode().filter("LengthFilter", max_length=3)
    assert [len(row["input_ids"]) for row in dataset] == [2, 3]


def test_the_quick_start_of_existing_scripts(shared, make_template):
    dataset = Dataset(dataset_meta=DatasetMeta(str(shared / "self_cognition.jsonl"), data_slice=range(300)))
    dataset.set_template(make_template())
    dataset.map("SelfCognitionProcessor", model_name="twinkle LLM", model_author="ModelScope Community")
    dataset.encode()
    texts = [dataset._template.decode(row["input_ids"]) for row in dataset]
    assert len(texts) == 300
    assert not any("{{" in text for text in texts)
    assert sum("twinkle LLM" in text for text in texts) == 88  # a third of the rows say the name


def test_a_raw_column_never_passes_for_labels(make, chat):
    row = make([chat("a", "b", labels="positive")]).encode(add_generation_prompt=True)[0]
    assert "labels" not in row
