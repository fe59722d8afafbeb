"""Tasks that are generated: arithmetic and countdown, rows with an answer that can be checked.

The same arguments give the same rows on every machine and in every process. Knows nothing of files, hubs or models; standard
library only. A problem belongs to ``train`` or to ``test``, whatever the seed, so the two never share one.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypedDict

from twinkle.errors import ConfigError

Split = Literal["train", "test"]


class ArithmeticRow(TypedDict):
    """One sum, in the columns of GSM8K (arXiv:2110.14168): ``answer`` ends with ``#### N``."""

    question: str
    answer: str
    tier: str


class CountdownRow(TypedDict):
    """One game of countdown: reach ``target`` with each of ``nums`` once and ``+ - * /``. ``solution`` is one way of many."""

    target: int
    nums: list[int]
    solution: str


class _Tier(NamedTuple):
    operator: Literal["+", "-", "*"]
    first: tuple[int, int]
    second: tuple[int, int]


TIERS: dict[str, _Tier] = {
    "add1": _Tier("+", (0, 9), (0, 9)),
    "sub1": _Tier("-", (0, 18), (0, 9)),
    "mul1": _Tier("*", (1, 9), (1, 9)),
    "add2": _Tier("+", (10, 99), (1, 99)),
    "sub2": _Tier("-", (10, 99), (1, 99)),
    "mul2": _Tier("*", (11, 99), (2, 9)),
    "add3": _Tier("+", (100, 999), (10, 999)),
}
"""Operator, and the ranges of both numbers (inclusive). The digit is the number of digits of the larger one."""

# The wordings that twinkle-tiny-qwen3 was trained on, so that its samples have something to be rewarded for.
_BARE = {
    "+": [
        "What is {a} + {b}?",
        "Calculate {a} + {b}.",
        "{a} + {b} = ?",
        "Compute the sum of {a} and {b}.",
        "Add {a} and {b}.",
        "What is {a} plus {b}?",
    ],
    "-": [
        "What is {a} - {b}?",
        "Calculate {a} - {b}.",
        "{a} - {b} = ?",
        "Subtract {b} from {a}.",
        "What is {a} minus {b}?",
        "Compute {a} - {b}.",
    ],
    "*": [
        "What is {a} * {b}?",
        "Calculate {a} * {b}.",
        "{a} * {b} = ?",
        "Multiply {a} by {b}.",
        "What is {a} times {b}?",
        "Compute {a} * {b}.",
    ],
}
_STORIES = {
    "+": [
        "{who} has {a} {what} and gets {b} more. How many {what} does {who} have?",
        "{who} buys {a} {what} on Monday and {b} {what} on Tuesday. How many {what} does {who} buy?",
    ],
    "-": [
        "{who} has {a} {what} and gives away {b}. How many {what} are left?",
        "{who} had {a} {what} but lost {b} of them. How many {what} does {who} still have?",
    ],
    "*": [
        "{who} has {b} bags with {a} {what} in each bag. How many {what} does {who} have?",
        "There are {b} boxes and each box holds {a} {what}. How many {what} are there?",
    ],
}
_WHO = ["Tom", "Anna", "Ben", "Lily", "Sam", "Mia", "Jack", "Sara", "Max", "Emma"]
_WHAT = ["apples", "books", "coins", "stamps", "marbles", "eggs", "cards", "pencils", "shells", "cookies"]
_STORY_SHARE = 0.2
_MOST_MISSES = 20_000
"""After so many games in a row that were no new ones, there are no more to be found."""

_APPLY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
}


def arithmetic(n: int, *, seed: int = 0, tiers: Sequence[str] | None = None, split: Split = "train") -> list[ArithmeticRow]:
    """``n`` sums of the given tiers (default: all of ``TIERS``), each tier as often as the others up to one row, in random order.

    Within a split a sum may come twice, as the lower tiers have no more than a hundred. The test problems of two and three digits
    are among those that twinkle-tiny-qwen3 has never seen.

    Raises:
        ConfigError: ``n`` is negative, there is no such tier or split.
    """
    names = list(TIERS if tiers is None else tiers)
    unknown = [name for name in names if name not in TIERS]
    if unknown or not names:
        raise ConfigError(
            f"There is no tier of arithmetic named {', '.join(map(repr, unknown)) or 'nothing'}. Tiers: {', '.join(TIERS)}."
        )
    _check(n, split)
    source = random.Random(f"arithmetic {seed} {split}")
    rows = [_arithmetic_row(source, names[index % len(names)], split) for index in range(n)]
    source.shuffle(rows)
    return rows


def countdown(n: int, *, seed: int = 0, numbers: Sequence[int] = (3, 4), split: Split = "train") -> list[CountdownRow]:
    """``n`` different games of countdown, with as many numbers (1 to 99) as ``numbers`` allows and a target of 10 to 100.

    Every one can be solved in whole numbers: it was made from its solution.

    Raises:
        ConfigError: ``n`` is negative, ``numbers`` is empty or holds something other than 2 to 6, there is no such split, or
            there aren't that many games.
    """
    if not numbers or not all(2 <= count <= 6 for count in numbers):
        raise ConfigError(f"A game of countdown has 2 to 6 numbers, not {list(numbers)!r}.")
    _check(n, split)
    source = random.Random(f"countdown {seed} {split}")
    rows: list[CountdownRow] = []
    seen: set[str] = set()
    misses = 0
    while len(rows) < n:
        row = _game(source, source.choice(numbers))
        key = f"{row['target']} {sorted(row['nums'])}"
        misses += 1
        if 10 <= row["target"] <= 100 and key not in seen and _is_kept_for_testing(key) == (split == "test"):
            seen.add(key)
            rows.append(row)
            misses = 0
        elif misses == _MOST_MISSES:
            raise ConfigError(
                f"There are no {n} different games with {list(numbers)!r} numbers in {split}; about {len(rows)} were found."
            )
    return rows


def _check(n: int, split: str) -> None:
    if n < 0:
        raise ConfigError(f"The number of rows can't be negative: {n}.")
    if split not in ("train", "test"):
        raise ConfigError(f"There is no split named {split!r}. Splits: train, test.")


def _is_kept_for_testing(problem: str) -> bool:
    """One problem in ten, chosen by a checksum, so that every seed agrees."""
    return zlib.crc32(problem.encode()) % 10 == 0


def _belongs(operator: str, a: int, b: int, split: Split) -> bool:
    """Whether a sum is one of ``split``; for training it mustn't be a test problem the other way round either."""
    # The same tenth, in the same spelling, was kept from twinkle-tiny-qwen3 when it was trained on sums of two and three digits.
    kept = _is_kept_for_testing(f"{operator}{a},{b}")
    return kept if split == "test" else not (kept or _is_kept_for_testing(f"{operator}{b},{a}"))


def _arithmetic_row(source: random.Random, tier: str, split: Split) -> ArithmeticRow:
    operator, first, second = TIERS[tier]
    while True:
        a, b = source.randint(*first), source.randint(*second)
        if (operator == "-" and b > a) or (operator == "+" and source.random() < 0.5):
            a, b = b, a
        if _belongs(operator, a, b, split):
            break
    result = _APPLY[operator](a, b)
    wordings = _STORIES if source.random() < _STORY_SHARE else _BARE
    question = source.choice(wordings[operator]).format(a=a, b=b, who=source.choice(_WHO), what=source.choice(_WHAT))
    return {"question": question, "answer": f"{a} {operator} {b} = {result}\n#### {result}", "tier": tier}


def _game(source: random.Random, count: int) -> CountdownRow:
    """A game with ``count`` numbers, whatever its target."""
    nums = [source.randint(1, 99) for _ in range(count)]
    target, solution = _combine(source, nums)
    return {"target": target, "nums": nums, "solution": solution}


def _combine(source: random.Random, nums: Sequence[int]) -> tuple[int, str]:
    """A random expression that uses each number once; every intermediate result is a positive whole number."""
    parts = [(value, str(value)) for value in nums]
    while len(parts) > 1:
        (a, left), (b, right) = sorted((parts.pop(source.randrange(len(parts))) for _ in range(2)), reverse=True)
        allowed = ["+"]
        if a > b:
            allowed.append("-")
        if a * b <= 1000:
            allowed.append("*")
        if b > 1 and a % b == 0:
            allowed.append("/")
        operator = source.choice(allowed)
        parts.append((_APPLY[operator](a, b), f"({left} {operator} {right})"))
    value, expression = parts[0]
    return value, expression[1:-1]
