"""The README's snippet runs."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    exec(snippet, {})
    assert (tmp_path / "output/last-checkpoint/adapter_model.safetensors").is_file()
