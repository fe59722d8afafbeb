"""Finding the line of a key in TOML text."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_registry._toml import key_lines, line_of

TEXT = """\
# [not.a.table]
a = 1
b.c = "x = 1"
"d.e" = '''
[[component]]
f = 1
'''
g = [
  { h = 1 },
  # i = 2
]

[j.'k l']  # a comment
m = \"\"\"
n = 1\"\"\"
o = { p = "]" , q = [1,
  2] }
[[r]]
s = 1
[[r]]
[r.t]
u = 1
[[r.v]]
w = 1
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (["a"], 2),
        (["b"], 3),
        (["b", "c"], 3),
        (["d.e"], 4),
        (["f"], 1),
        (["g"], 8),
        (["g", 0, "h"], 8),
        (["i"], 1),
        (["j", "k l"], 13),
        (["j", "k l", "m"], 14),
        (["j", "k l", "n"], 13),
        (["j", "k l", "o"], 16),
        (["j", "k l", "o", "q", 1], 16),
        (["r", 0], 18),
        (["r", 0, "s"], 19),
        (["r", 1], 20),
        (["r", 1, "s"], 20),
        (["r", 1, "t", "u"], 22),
        (["r", 1, "v", 0, "w"], 24),
        ([], 1),
    ],
)
def test_the_line_of_a_key_or_else_of_what_is_around_it(key: list[str | int], line: int):
    tomllib.loads(TEXT)
    assert line_of(TEXT, key) == line


_names = st.text("abcxyz_-1", min_size=1, max_size=5)
_values = st.sampled_from(["1", '"a = 1"', "'#'", "[\n1,\n2]", '"""\n[x]\ny = 2\n"""', "{ a = 1 }", "'''\nz = 3'''"])


@given(st.dictionaries(_names, st.dictionaries(_names, _values, max_size=4), max_size=4))
def test_each_key_is_found_where_it_was_written(tables: dict[str, dict[str, str]]):
    lines, expected = [], {}
    for table, keys in tables.items():
        expected[table,] = len(lines) + 1
        lines.append(f"[{table}]")
        for key, value in keys.items():
            expected[table, key] = len(lines) + 1
            lines += f"{key} = {value}".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)
    assert key_lines(text) == expected
