"""Byte-level BPE by tiktoken: the same ids as the tokenizer's own call, several times faster.

Built from what the tokenizer says of itself, and only where each part of it has an exact counterpart here; checked against the
tokenizer on a probe text before use. Texts that could be read differently go to the tokenizer's own call, row by row. Knows
nothing of chats.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from twinkle_plugin_templates.tokenization import Codec, Encoded, HFCodec, text_starts

# The pattern that ByteLevel splits by when it has none of its own (tokenizers, pre_tokenizers/byte_level.rs; GPT-2's).
_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# What both regex engines read alike: groups, case-insensitive groups, and one look-ahead. Anchors mean different things to them.
_GROUPS = re.compile(r"\(\?(?!:|i:|!\\S\))")
_ANCHORS = re.compile(r"\$|(?<!\[)\^|\\[AbBGzZ]")
# tiktoken's engine backtracks over such a run and fails between 10^5 and 10^6 characters.
_LONG_BLANK = re.compile(r"\s{20000}")


@dataclass(frozen=True, slots=True)
class BytePairs:
    """A byte-level BPE tokenizer as data.

    Attributes:
        pattern: what splits a text into pieces.
        tokens: the bytes of each token, in the order in which merges apply; the 256 single bytes first.
        ids: the tokenizer's id of each.
        added: the tokenizer's added tokens, which are found in a text before all else, with their ids.
        composes: texts are normalised to NFC first.
    """

    pattern: str
    tokens: list[bytes]
    ids: list[int]
    added: dict[str, int]
    composes: bool


class BPECodec(Codec):
    """Encodes by tiktoken.

    What could differ there goes to ``exact``: text that NFC changes, characters that aren't assigned in this Python's Unicode, and
    very long white space.
    """

    def __init__(self, pairs: BytePairs, exact: HFCodec) -> None:
        import tiktoken

        self._exact = exact
        self._composes = pairs.composes
        first_added = len(pairs.tokens)
        self._added = frozenset(pairs.added)
        self._encoding = tiktoken.Encoding(
            "twinkle",
            pat_str=pairs.pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(pairs.tokens)},
            special_tokens={text: first_added + number for number, text in enumerate(pairs.added)},
        )
        self._ids = np.array([*pairs.ids, *pairs.added.values()], np.int32)
        self._widths = np.array([*map(len, pairs.tokens), *(len(text.encode()) for text in pairs.added)], np.int64)
        self._assigned: set[str] = set()

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        plain = [self._reads_alike(text) for text in texts]
        if all(plain):
            return self._encode(texts)
        fast = self._encode([text for text, alike in zip(texts, plain, strict=True) if alike])
        slow = self._exact.encode_batch([text for text, alike in zip(texts, plain, strict=True) if not alike])
        return _interleave(texts, plain, fast, slow)

    def _encode(self, texts: Sequence[str]) -> Encoded:
        encode, added = self._encoding.encode_to_numpy, self._added
        parts = [encode(text, allowed_special=added, disallowed_special=()) for text in texts]
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        ranks = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
        widths = self._widths[ranks]
        starts = np.cumsum(widths) - widths  # bytes of the joined texts
        joined = "".join(texts)
        if not joined.isascii():
            continues = np.frombuffer(joined.encode(), np.uint8) & 0xC0 == 0x80
            starts = (np.cumsum(~continues) - 1)[starts]
        return Encoded(self._ids[ranks], starts, counts)

    def _reads_alike(self, text: str) -> bool:
        if len(text) >= 20_000 and _LONG_BLANK.search(text):
            return False
        if text.isascii():
            return True
        if not text.replace("\n", "").isprintable():  # what is printable is assigned
            unknown = set(text) - self._assigned
            if any(unicodedata.category(character) == "Cn" for character in unknown):
                return False
            self._assigned |= unknown
        return not self._composes or unicodedata.is_normalized("NFC", text)


def fast_codec(tokenizer: Any) -> Codec:
    """The fastest codec with the tokenizer's own ids: tiktoken where it can be built and agrees on a probe, else its own."""
    exact = HFCodec(tokenizer)
    pairs = read_byte_pairs(json.loads(exact.backend.to_str()))
    if pairs is None or getattr(tokenizer, "split_special_tokens", False):
        return exact
    codec = BPECodec(pairs, exact)
    return codec if agrees(codec, exact, pairs) else exact


def read_byte_pairs(description: Mapping[str, Any]) -> BytePairs | None:
    """Read a ``tokenizer.json``; None where it isn't byte-level BPE through and through, or has a part without counterpart."""
    model, pattern = description["model"], _pattern(description["pre_tokenizer"])
    normalizer = description["normalizer"]
    if model.get("type") != "BPE" or pattern is None or normalizer not in (None, {"type": "NFC"}):
        return None
    if any(model.get(option) for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")):
        return None
    added = _added_tokens(description["added_tokens"])
    ordered = _merge_order(model, added or {})
    if added is None or ordered is None:
        return None
    table = str.maketrans({character: chr(byte) for character, byte in byte_characters().items()})
    return BytePairs(
        pattern=pattern,
        tokens=[token.translate(table).encode("latin-1") for token in ordered],
        ids=[model["vocab"][token] for token in ordered],
        added=added,
        composes=normalizer is not None,
    )


def agrees(codec: Codec, exact: Codec, pairs: BytePairs) -> bool:
    """Whether two codecs give the same tokens, at the same characters, on texts that show their parts."""
    texts = _probes(pairs)
    ours, theirs = codec.encode_batch(texts), exact.encode_batch(texts)
    return np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.starts, theirs.starts)


def byte_characters() -> dict[str, int]:
    """The printable character that byte-level vocabularies write for each byte (GPT-2's ``bytes_to_unicode``)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    steps = [pre_tokenizer] if pre_tokenizer else []
    if pre_tokenizer and pre_tokenizer["type"] == "Sequence":
        steps = pre_tokenizer["pretokenizers"]
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if len(steps) == 1:
        return _GPT2_PATTERN if steps[0].get("use_regex", True) else None
    if len(steps) != 2 or steps[0]["type"] != "Split" or steps[1].get("use_regex", True):
        return None
    split = steps[0]
    pattern: str | None = split["pattern"].get("Regex")
    if pattern is None or split["behavior"] != "Isolated" or split["invert"] or _GROUPS.search(pattern) or _ANCHORS.search(pattern):
        return None
    return pattern


def _added_tokens(tokens: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] or not token["content"] for token in tokens):
        return None
    texts = sorted(token["content"] for token in tokens)
    if any(longer.startswith(shorter) for shorter, longer in pairwise(texts)):
        return None  # the longest has to win, and tiktoken doesn't promise that
    return {token["content"]: token["id"] for token in tokens}


def _merge_order(model: Mapping[str, Any], added: Mapping[str, int]) -> list[str] | None:
    """The tokens in the order in which they arise: bytes, then merges. None where tiktoken would merge in another order."""
    vocab = model["vocab"]
    order = dict.fromkeys(byte_characters())
    if not all(byte in vocab for byte in order):
        return None
    previous = None
    for merge in model["merges"]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        merged = first + second
        if merged in order and merged != previous:
            return None  # a token that arises at two ranks; tiktoken has one rank a token
        order[merged] = None
        previous = merged
    if any(token not in vocab for token in order):
        return None
    if model.get("ignore_merges") and any(token not in order and token not in added for token in vocab):
        return None  # a token that no merge makes, yet is found whole
    return list(order)


def _probes(pairs: BytePairs) -> list[str]:
    """Texts on which a difference would show: all scripts next to letters, digits and blanks; added tokens; merges."""
    codes = (*range(0x20, 0x600), *range(0x600, 0x3000, 7), *range(0x3000, 0x20000, 61))
    scripts = [chr(code) for code in codes if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    texts = ["".join(f"a{one} {one}1{one}{one}" for one in scripts[start : start + 500]) for start in range(0, len(scripts), 500)]
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    sentence = "It's he'LL I'm\tDON'T 3.14 12345  \n\n \r\n x  \t y\u00a0z\u3000 !?... émigré 你好，世界 😀👍🏽 'ſ K\n"
    texts += ["", " ", "\n", sentence, sentence * 3, *(f"{sentence}{added} {added}\n{added}{sentence}" for added in pairs.added)]
    step = max(1, len(pairs.tokens) // 1000)
    words = [word for token in pairs.tokens[256::step] if "\ufffd" not in (word := token.decode(errors="replace"))]
    # A token as a whole piece; and run into another, cut short, so that the order of merges decides.
    return texts + words + [f"{one}{other[1:]}{one.strip()}{other.strip()[:-1]}" for one, other in pairwise(words)]


def _interleave(texts: Sequence[str], plain: Sequence[bool], fast: Encoded, slow: Encoded) -> Encoded:
    """The tokens of all texts in order, from those of the plain ones and those of the others."""
    counts = np.zeros(len(texts), np.int64)
    counts[np.array(plain)] = fast.counts
    counts[~np.array(plain)] = slow.counts
    chosen = np.repeat(np.array(plain), counts)
    ids, starts = np.empty(len(chosen), np.int32), np.empty(len(chosen), np.int64)
    bases = text_starts(texts)
    for part, mine, where in ((fast, np.array(plain), chosen), (slow, ~np.array(plain), ~chosen)):
        own = text_starts([text for text, yes in zip(texts, mine, strict=True) if yes])
        ids[where] = part.ids
        starts[where] = part.starts + np.repeat(bases[mine] - own, part.counts)
    return Encoded(ids, starts, counts)
