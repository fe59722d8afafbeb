"""The generated tasks: right, solvable, the same for the same seed, and train apart from test."""

import ast
import re
import zlib
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle.errors import ConfigError
from twinkle_plugin_tiny.tasks import TIERS, arithmetic, countdown

SEEDS = st.integers(0, 2**31)


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """The exact value of an expression of + - * /, and the numbers in it."""
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            numbers.append(node.value)
            return Fraction(node.value)
        assert isinstance(node, ast.BinOp), ast.dump(node)
        left, right = value(node.left), value(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
        raise AssertionError(ast.dump(node))

    return value(ast.parse(expression, mode="eval").body), numbers


@given(seed=SEEDS)
def test_every_countdown_is_solved_by_its_solution_with_each_number_once(seed):
    for row in countdown(20, seed=seed, numbers=(2, 3, 4, 5, 6)):
        value, used = evaluate(row["solution"])
        assert value == row["target"]
        assert sorted(used) == sorted(row["nums"])
        assert 10 <= row["target"] <= 100
        assert all(1 <= number <= 99 for number in row["nums"])


@given(seed=SEEDS, tier=st.sampled_from(sorted(TIERS)))
def test_the_answer_to_a_sum_is_right_and_is_what_the_question_asks(seed, tier):
    for row in arithmetic(10, seed=seed, tiers=[tier]):
        work, _, final = row["answer"].partition("\n#### ")
        left, _, right = work.partition(" = ")
        value, used = evaluate(left)
        assert value == int(right) == int(final)
        assert sorted(map(int, re.findall(r"\d+", row["question"]))) == sorted(used)
        assert row["tier"] == tier


@given(seed=SEEDS)
def test_results_of_sums_are_never_negative(seed):
    assert all(int(row["answer"].rpartition(" ")[2]) >= 0 for row in arithmetic(30, seed=seed))


@pytest.mark.parametrize("generate", [arithmetic, countdown])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(generate):
    assert generate(50, seed=3) == generate(50, seed=3)
    assert generate(50, seed=3) != generate(50, seed=4)


def test_what_is_asked_for_is_what_comes():
    assert len(arithmetic(101)) == 101
    assert len(countdown(101)) == 101
    assert arithmetic(0) == []
    assert countdown(0) == []


def test_tiers_come_equally_often():
    counts = Counter(row["tier"] for row in arithmetic(700))
    assert counts == dict.fromkeys(TIERS, 100)


def test_games_of_countdown_differ_within_a_split():
    rows = countdown(500)
    assert len({(row["target"], *sorted(row["nums"])) for row in rows}) == 500


def test_more_games_than_there_are_is_an_error_and_no_endless_search():
    with pytest.raises(ConfigError, match=r"no 10000 different games with \[2\] numbers in test"):
        countdown(10_000, numbers=[2], split="test")


def test_train_and_test_share_no_problem_whatever_the_seeds():
    def sums(**options):
        return {tuple(re.split(r" ([-+*]) ", row["answer"].partition(" =")[0])) for row in arithmetic(700, **options)}

    def games(**options):
        return {(row["target"], *sorted(row["nums"])) for row in countdown(300, **options)}

    trained = sums(seed=0) | sums(seed=1)
    assert not trained & sums(seed=2, split="test")
    assert not {(b, operator, a) for a, operator, b in trained if operator != "-"} & sums(seed=2, split="test")
    assert not (games(seed=0) | games(seed=1)) & games(seed=2, split="test")


def test_problems_to_test_on_are_the_ones_that_the_tiny_model_was_never_trained_on():
    for row in arithmetic(200, split="test"):
        a, operator, b = row["answer"].partition(" =")[0].split()
        assert zlib.crc32(f"{operator}{a},{b}".encode()) % 10 == 0


def test_an_unknown_tier_is_refused_with_the_ones_there_are():
    with pytest.raises(ConfigError, match=r"'add9'.*add1, sub1"):
        arithmetic(3, tiers=["add1", "add9"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arithmetic(-1), "can't be negative: -1"),
        (lambda: countdown(-1), "can't be negative: -1"),
        (lambda: arithmetic(1, tiers=[]), "Tiers: add1"),
        (lambda: countdown(1, numbers=[1]), r"2 to 6 numbers, not \[1\]"),
        (lambda: countdown(1, numbers=[]), "2 to 6 numbers"),
        (lambda: arithmetic(1, split="dev"), "'dev'. Splits: train, test"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
