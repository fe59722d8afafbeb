"""The README's snippets run."""

import re
from pathlib import Path

import pytest


def test_the_readme_s_snippet_runs():
    pytest.importorskip("twinkle_plugin_tiny", reason="needs twinkle-plugin-tiny, whose model the snippet uses")
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
