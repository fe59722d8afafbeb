"""The fast codec gives the tokenizer's own tokens, and leaves what it can't read alike to the tokenizer."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle_plugin_templates.bpe import BPECodec, agrees, fast_codec, read_byte_pairs
from twinkle_plugin_templates.tokenization import HFCodec

# Pieces in which engines could differ: blanks of all kinds, contractions, marks, added tokens whole and in part.
PIECES = st.sampled_from(
    [
        "<|im_end|>",
        "<|im_start|>",
        "<think>",
        "<|im_",
        "end|>",
        "'s",
        "'LL",
        "'ſ",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\u00a0",
        "\u2028",
        "\u3000",
        *[
            "\u0301",
            "e\u0301",
            "é",
            "1",
            "½",
            "你",
            "😀",
            "👍🏽",
            "\u200d",
            "K",
            "ﬁ",
            "\u0378",
            "\U0001e030",
            "a",
            "the",
            "...",
            "_",
        ],
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=15).map("".join))


@pytest.fixture(scope="module")
def codecs(tokenizer):
    return fast_codec(tokenizer), HFCodec(tokenizer)


@pytest.fixture
def description(tokenizer):
    return json.loads(tokenizer.backend_tokenizer.to_str())


def same(ours, theirs):
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("ids", "starts", "counts"))


def test_byte_level_bpe_takes_the_fast_way(codecs):
    assert isinstance(codecs[0], BPECodec)


@settings(deadline=None, max_examples=300)
@given(texts=st.lists(TEXTS, max_size=6))
def test_ids_and_starts_are_the_tokenizer_s_own(codecs, texts):
    fast, exact = codecs
    assert same(fast.encode_batch(texts), exact.encode_batch(texts))


@pytest.mark.parametrize("text", ["a" * 30_000, " " * 150_000 + "x", "\n" * 30_000, "ab " * 10_000])
def test_long_runs_are_no_danger(codecs, text):
    fast, exact = codecs
    assert same(fast.encode_batch(["before", text, "after é"]), exact.encode_batch(["before", text, "after é"]))


def test_a_character_split_among_tokens_starts_them_all(codecs):
    encoded = codecs[0].encode_batch(["aé", "😀b"])
    assert encoded.starts[encoded.bounds[1] :].tolist()[-1] == 3
    assert set(encoded.starts[encoded.bounds[1] : -1].tolist()) == {2}


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update(normalizer={"type": "NFKC"}),
        lambda it: it.update(pre_tokenizer=None),
        lambda it: it["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        lambda it: it["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
        lambda it: it["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": r"\w+$"}),
        lambda it: it["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": r"\w+(?<=a)"}),
        lambda it: it["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": True}),
        lambda it: it["model"].update(dropout=0.1),
        lambda it: it["model"].update(byte_fallback=True),
        lambda it: it["model"].update(type="WordPiece"),
        lambda it: it["model"]["vocab"].pop("!"),
        lambda it: it["model"]["merges"].append(it["model"]["merges"][0]),
        lambda it: it["added_tokens"][0].update(lstrip=True),
        lambda it: it["added_tokens"].append({**it["added_tokens"][0], "content": "<|im", "id": 9999}),
    ],
)
def test_a_tokenizer_with_a_part_that_has_no_counterpart_takes_the_tokenizer_s_way(description, change):
    assert read_byte_pairs(description) is not None
    changed = copy.deepcopy(description)
    change(changed)
    assert read_byte_pairs(changed) is None


def test_the_self_check_finds_a_tokenizer_that_merges_otherwise(codecs, description):
    pairs = read_byte_pairs(description)
    exact = codecs[1]
    assert agrees(BPECodec(pairs, exact), exact, pairs)
    pairs.tokens[256:] = pairs.tokens[:255:-1]
    pairs.ids[256:] = pairs.ids[:255:-1]
    assert not agrees(BPECodec(pairs, exact), exact, pairs)


def test_a_tokenizer_of_another_kind_still_encodes(tokenizer):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    codec = fast_codec(PreTrainedTokenizerFast(tokenizer_object=words))
    assert isinstance(codec, HFCodec)
    encoded = codec.encode_batch(["a b", " b x"])
    assert encoded.ids.tolist() == [0, 1, 1, 2]
    assert encoded.starts.tolist() == [0, 2, 4, 6]
