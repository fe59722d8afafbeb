"""What the tests stand on: a template of a few lines, rows, and data that lies beside the checkout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from twinkle.errors import DataError
from twinkle.launch import Launch
from twinkle.local_runtime import LocalRuntime
from twinkle.runtime import use_runtime
from twinkle.template import BaseTemplate

SHARED = Path(__file__).resolve().parents[3].parent / "shared"


class CharTemplate(BaseTemplate):
    """A token a character; the assistant's are labelled. Counts the rows that it encodes."""

    def __init__(self, max_length: int = 1000, truncation_strategy: str = "raise") -> None:
        self.max_length = max_length
        self.truncation_strategy = truncation_strategy
        self.encoded = 0

    def batch_encode(self, trajectories, *, add_generation_prompt=False):
        return [self._features(index, row, add_generation_prompt) for index, row in enumerate(trajectories)]

    def decode(self, token_ids, **kwargs):
        return "".join(map(chr, token_ids))

    def _features(self, index, row, add_generation_prompt):
        self.encoded += 1
        ids, labels = [], []
        for message in row["messages"]:
            tokens = [ord(letter) for letter in message["content"]]
            ids += tokens
            labels += tokens if message["role"] == "assistant" else [-100] * len(tokens)
        feature = {"input_ids": np.array(ids, np.int64), "labels": np.array(labels, np.int64)}
        if add_generation_prompt:
            feature = {"input_ids": np.array([*ids, ord(">")])}
        if "user_data" in row:
            feature["user_data"] = row["user_data"]
        if len(ids) <= self.max_length or self.truncation_strategy == "none":
            return [feature]
        if self.truncation_strategy == "raise":
            raise DataError(
                f"Row {index}: {len(ids)} tokens, more than max_length={self.max_length}; choose a truncation_strategy."
            )
        if self.truncation_strategy == "delete":
            return []
        starts = range(0, len(ids), self.max_length)
        extras = {name: feature.pop(name) for name in ("user_data",) if name in feature}
        return [{name: values[start : start + self.max_length] for name, values in feature.items()} | extras for start in starts]


@pytest.fixture
def make_template() -> Callable[..., CharTemplate]:
    return CharTemplate


@pytest.fixture
def template() -> CharTemplate:
    return CharTemplate()


@pytest.fixture
def chat() -> Callable[..., dict]:
    """A trajectory of one question and answer."""

    def make(question: str = "hi", answer: str = "ho", **more) -> dict:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}

    return make


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[dict], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def shared() -> Path:
    """The folder with data from elsewhere, beside the checkout."""
    if not (SHARED / "data" / "datasets").is_dir():
        pytest.skip("needs ../shared/data/datasets")
    return SHARED / "data" / "datasets"


@pytest.fixture
def as_rank() -> Callable:
    """Be rank ``rank`` of ``world_size``, as under torchrun, in a ``with`` block."""

    def be(rank: int, world_size: int):
        return use_runtime(LocalRuntime(launch=Launch(rank, world_size, rank, world_size)))

    return be
