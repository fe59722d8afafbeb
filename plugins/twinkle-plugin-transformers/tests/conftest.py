"""Tiny random models and rows, and a plain PyTorch + PEFT loop to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import Qwen3Config

from twinkle.model import TransformersModel
from twinkle.runtime import use_runtime


@pytest.fixture(autouse=True)
def fresh_runtime() -> Iterator[None]:
    """Every test has a runtime of its own, and one thread."""
    torch.set_num_threads(1)
    with use_runtime(None):
        yield


@pytest.fixture
def config() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=True,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=None,
        max_position_embeddings=128,
    )


@pytest.fixture
def lora() -> Callable[..., LoraConfig]:
    def build(**options: Any) -> LoraConfig:
        return LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": "all-linear", **options})

    return build


@pytest.fixture
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    def build(count: int, *, seed: int = 0, vocabulary: int = 257, prompt: int = 4) -> list[dict[str, Any]]:
        """Rows of different lengths whose first ``prompt`` tokens have no label."""
        generator = np.random.default_rng(seed)
        rows = []
        for _ in range(count):
            ids = generator.integers(2, vocabulary, int(generator.integers(prompt + 2, 24)))
            labels = ids.copy()
            labels[:prompt] = -100
            rows.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
        return rows

    return build


@pytest.fixture
def make_model(config: Qwen3Config, lora: Callable[..., LoraConfig]) -> Callable[..., TransformersModel]:
    def build(*, adapter: bool = True, accumulation: int = 1, lr: float = 1e-2, **options: Any) -> TransformersModel:
        """A model with an optimizer; its adapter's B is random, so that everything has a gradient."""
        model = TransformersModel(config=config, **options)
        if adapter:
            model.add_adapter_to_model("default", lora(init_lora_weights=False), gradient_accumulation_steps=accumulation)
        model.set_optimizer("AdamW", lr=lr)
        return model

    return build


@pytest.fixture
def shared() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        """A file or folder beside the checkout, or a skip that names it."""
        path = Path(__file__).resolve().parents[3].parent / "shared" / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}")
        return path

    return find
