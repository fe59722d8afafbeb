"""Encoding chats with labels: Twinkle against ``datasets.map`` with ``apply_chat_template`` row by row.

The same generated chats, tokenizer and labels on both sides, in one process; ids and labels are compared before anything is timed.
The other side is what TRL's SFTTrainer does: two ``apply_chat_template`` calls a row for prompt and completion, or, for several
turns, one with ``return_assistant_tokens_mask`` and a template with ``{% generation %}`` blocks.

    python benchmarks/encode.py [--tokenizer FOLDER_OR_REFERENCE] [--rows N] [--repeats N] [--json]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from report import Result, compare, cpu_times, print_results

from twinkle.data_format import IGNORE_INDEX
from twinkle.dataset import Dataset, DatasetMeta
from twinkle.template import Template

LIMIT = 4.0  # what the project promises: four times as many rows a CPU second
TEMPLATE_ALONE = "the template alone"

_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu an er in on st tr ing tion ly".split()  # noqa: SIM905 - reads better


def chats(count: int, turns: int, seed: int) -> list[dict[str, Any]]:
    """``count`` chats with ``turns`` exchanges each, of made-up words, numbers, code, and some Chinese; about 300 tokens a turn."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(_SYLLABLES, k=generator.choice((1, 2, 2, 3)))) for _ in range(3000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]

    def text(length: int) -> str:
        parts = generator.choices(words, weights, k=length)
        for place in range(0, length, 12):
            parts[place] = generator.choice(
                (f"{generator.randint(0, 9999)}.", "x = f(y)\n", "Why?\n\n", "你好，世界。", "it's,", "- item:")
            )
        return " ".join(parts)

    rows = []
    for _ in range(count):
        messages = []
        for _ in range(turns):
            messages.append({"role": "user", "content": text(generator.randint(20, 60))})
            messages.append({"role": "assistant", "content": text(generator.randint(40, 120))})
        rows.append({"messages": messages})
    return rows


def per_row_prompt_completion(tokenizer: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """TRL's way for prompt and completion: both rendered and tokenised, the prompt's length masks."""

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        messages = row["messages"]
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        return {"input_ids": whole, "labels": [IGNORE_INDEX] * len(prompt) + whole[len(prompt) :]}

    return encode


def per_row_assistant_mask(tokenizer: Any, chat_template: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """TRL's way for all turns of the assistant: the tokenizer's mask, from a template with generation blocks."""

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer.apply_chat_template(
            row["messages"], chat_template=chat_template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = found["input_ids"], found["assistant_masks"]
        return {"input_ids": ids, "labels": [token if on else IGNORE_INDEX for token, on in zip(ids, mask, strict=True)]}

    return encode


def with_generation_blocks(chat_template: str) -> str:
    """Qwen3's chat template with the assistant's turns marked; renders the same."""
    branch = '{%- elif message.role == "assistant" %}'
    before, _, turn = chat_template.partition(branch)
    turn, _, after = turn.partition("{{- '<|im_end|>\\n' }}")
    if "'<|im_start|>' + message.role + '\\n" not in turn:
        raise SystemExit("This benchmark marks the turns of Qwen3's chat template; the tokenizer has another one.")
    head, condition, body = turn.partition("{%- if loop.index0 > ns.last_query_index %}")
    body = body.replace("'<|im_start|>' + message.role + '\\n' + ", "").replace(
        "'<|im_start|>' + message.role + '\\n<think>", "'<think>"
    )
    opened = "{{- '<|im_start|>' + message.role + '\\n' }}{%- generation %}"
    closed = "{{- '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}"
    return before + branch + head + opened + condition + body + closed + after


def map_rows(rows: datasets.Dataset, encode: Callable[[dict[str, Any]], dict[str, Any]]) -> datasets.Dataset:
    """``datasets.map`` without its cache, and without hashing the function, which would be timed otherwise."""
    return rows.map(
        encode, remove_columns=rows.column_names, load_from_cache_file=False, keep_in_memory=True, new_fingerprint="none"
    )


def measure(
    name: str, template: Template, rows: list[dict[str, Any]], encode_row: Callable[[dict[str, Any]], dict[str, Any]], repeats: int
) -> list[Result]:
    """Compare ids and labels of both sides, then time them."""
    table = datasets.Dataset.from_list(rows)

    def alone() -> object:
        return template.batch_encode(rows)

    def whole() -> Dataset:
        return Dataset(DatasetMeta("chats", data=rows)).set_template(template).encode()

    theirs = map_rows(table, encode_row)
    for number, (ours, other) in enumerate(zip(whole(), theirs, strict=True)):
        same(number, ours, other, template)
    tokens = sum(map(len, theirs["input_ids"])) / len(rows)
    name = f"{name}, {tokens:.0f} tokens a row"
    other_rates = rates(cpu_times(lambda: map_rows(table, encode_row), repeats), len(rows))
    return [
        compare(f"{name}, Dataset.encode", rates(cpu_times(whole, repeats), len(rows)), other_rates, LIMIT, "rows/s"),
        compare(f"{name}, {TEMPLATE_ALONE}", rates(cpu_times(alone, repeats), len(rows)), other_rates, LIMIT, "rows/s"),
    ]


def same(number: int, ours: dict[str, Any], theirs: dict[str, Any], template: Template) -> None:
    """Stop where the sides differ on row ``number``; but two calls a row also label the line break after the last end of turn."""
    labels = np.array(theirs["labels"])
    end = len(labels) if labels[-1] == IGNORE_INDEX else 1 + int(np.flatnonzero(labels == template.eos_token_id)[-1])
    labels[end:] = IGNORE_INDEX
    if not np.array_equal(ours["input_ids"], theirs["input_ids"]) or not np.array_equal(ours["labels"], labels):
        raise SystemExit(f"Row {number}: the two sides differ; there is nothing to time.")


def rates(seconds: list[float], rows: int) -> list[float]:
    """Rows a CPU second."""
    return [rows / one for one in seconds]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokenizer", default="tiny://models/twinkle-tiny-qwen3", help="folder or hub reference")
    parser.add_argument("--rows", type=int, default=2000, help="single-turn chats; a tenth as many with 8 exchanges")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    template = Template(arguments.tokenizer, max_length=None)
    tokenizer = template.tokenizer
    marked = with_generation_blocks(tokenizer.chat_template)
    single, several = chats(arguments.rows, 1, seed=1), chats(max(1, arguments.rows // 10), 8, seed=2)
    results = measure("one exchange, two calls a row", template, single, per_row_prompt_completion(tokenizer), arguments.repeats)
    results += measure(
        "8 exchanges, assistant mask", template, several, per_row_assistant_mask(tokenizer, marked), arguments.repeats
    )
    return print_results(results, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
