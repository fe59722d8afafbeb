"""The static scan: what it sees, where, that it sees through the usual disguises, and that it survives any source."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle_registry.scan import capabilities, scan


def found(source: str | bytes, path: str = "m.py"):
    return scan({path: source if isinstance(source, bytes) else source.encode()})


def in_function(body: str) -> str:
    return "def f(x):\n" + "".join(f"    {line}\n" for line in body.splitlines())


@pytest.mark.parametrize(
    ("source", "capability"),
    [
        ("import socket", "network"),
        ("import urllib.request", "network"),
        ("from http import client", "network"),
        ("import torch\ntorch.hub.load('a', 'b')", "network"),
        ("x.from_pretrained('a')", "network"),
        ("import subprocess", "subprocess"),
        ("import os\nos.system('ls')", "subprocess"),
        ("from os import execv as e", "subprocess"),
        ("import multiprocessing as mp", "subprocess"),
        ("import ctypes", "native"),
        ("from torch.utils import cpp_extension", "native"),
        ("open('x')", "files"),
        ("import shutil", "files"),
        ("from pathlib import Path\nPath('x').write_text('y')", "files"),
        ("import os\nos.unlink('x')", "files"),
        ("import pickle", "pickle"),
        ("import marshal", "pickle"),
        ("import shelve", "pickle"),
        ("import torch\ntorch.load('x')", "pickle"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "pickle"),
        ("import yaml\nyaml.load('x')", "pickle"),
        ("class A:\n    def __reduce__(self): ...", "pickle"),
        ("eval('1')", "dynamic-code"),
        ("exec('1')", "dynamic-code"),
        ("compile('1', 'a', 'exec')", "dynamic-code"),
        ("__import__('x')", "dynamic-code"),
        ("import importlib\nimportlib.import_module(x)", "dynamic-code"),
        ("().__class__.__base__.__subclasses__()", "dynamic-code"),
        ("f.__globals__['x']", "dynamic-code"),
        ("import os\ngetattr(os, x)", "dynamic-code"),
        ("import os\nos.environ['HF_TOKEN']", "environment"),
        ("import sys\nsys.path.insert(0, 'x')", "global-state"),
        ("import sys\nsys.modules['x'] = None", "global-state"),
        ("import torch\ntorch.nn.Linear.forward = x", "global-state"),
        ("import torch\nsetattr(torch.nn.Linear, 'forward', x)", "global-state"),
        ("import torch\ndel torch.load", "global-state"),
        ("import builtins\nbuiltins.print = x", "global-state"),
        ("from os import *", "dynamic-code"),
    ],
)
def test_what_code_can_do_is_found(source: str, capability: str):
    assert capability in capabilities(found(in_function(source) if "*" not in source else source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\nclass A:\n    def __call__(self, x):\n        self.n = x\n        return torch.exp(x).mean()",
        "import re\nPATTERN = re.compile('a')",
        "model.eval()",
        "def f(code, site):\n    code.value = site.x\n    return getattr(code, 'x', None)",
        "import torch\nstate = torch.zeros(3)\nstate[0] = 1",
        "'just text with eval( and os.system in it'",
        "from .socket import connect\nconnect()",
        "import json\njson.loads('1')",
    ],
)
def test_ordinary_code_has_no_findings(source: str):
    assert found(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os as o\no.system('x')",
        "from os import system as s\ns('x')",
        "import os\nrun = os.system\nrun('x')",
        "__import__('os').system('x')",
        "__import__('o' + 's').system('x')",
        "__import__('so'[::-1]).system('x')",
        "__import__(''.join(['o', chr(115)])).system('x')",
        "import os\ngetattr(os, 'sys' + 'tem')('x')",
        "import importlib as i\ni.import_module('os').system('x')",
        "import sys\nsys.modules['os'].system('x')",
        "import os\nvars(os)['system']('x')",
        "import os\nos.__dict__['system']('x')",
        "getattr(__import__('os'), f'sys{\"tem\"}')('x')",
        "# coding: raw_unicode_escape\n# \\u000aimport os\\u000aos.system('x')",
    ],
)
def test_starting_a_process_is_seen_through_its_disguises(source: str):
    assert any("os.system" in finding.message and finding.capability == "subprocess" for finding in found(source))


@pytest.mark.parametrize(
    "source",
    [
        "getattr(__builtins__, 'ev' + 'al')('1')",
        "__builtins__['eval']('1')",
        "import builtins\nbuiltins.eval('1')",
        "globals()['eval']('1')",
        "e = eval\ne('1')",
        "map(eval, x)",
        "ｅｖａｌ('1')",
    ],
)
def test_executing_text_is_seen_through_its_disguises(source: str):
    assert any("uses eval" in finding.message for finding in found(source))


@pytest.mark.parametrize("call", ["base64.b64decode(x)", "zlib.decompress(x)", "bytes.fromhex(x)", "codecs.decode(x, 'rot13')"])
def test_decoding_is_told_where_the_file_also_executes(call: str):
    imports = "import base64, zlib, codecs\n"
    assert not capabilities(found(f"{imports}y = {call}"))
    (finding,) = [row for row in found(f"{imports}y = {call}\nexec(y)") if row.rule == "decodes"]
    assert (finding.line, finding.message) == (2, "decodes data in a file that also executes code (line 3)")


def test_a_finding_names_file_line_and_what_it_means():
    (finding,) = found(in_function("\nimport requests"), "parts/loss.py")
    assert str(finding) == "parts/loss.py:3: imports requests, which can reach the network"


def test_what_runs_at_import_is_marked_and_followed_through_functions():
    source = "import os\ndef inner():\n    os.system('x')\ndef outer():\n    inner()\nclass A:\n    y = outer()\n"
    (finding,) = [row for row in found(source, "__init__.py") if row.rule == "at-import"]
    assert finding.line == 7
    assert finding.message == "at import, uses os.system, which can start or signal processes (through inner)"


def test_what_only_runs_as_a_script_or_when_called_is_not_marked():
    source = "import os\ndef f():\n    os.system('x')\nif __name__ == '__main__':\n    f()\n"
    assert {row.rule for row in found(source)} == {"use"}


def test_reading_weights_alone_is_no_unpickling():
    assert capabilities(found("import torch\ntorch.load('x', weights_only=True)")) == ("files",)


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("(" * 50_000, "too-deep"),
        ("x" + ".y" * 100_000, "too-deep"),
        ("-" * 100_000 + "1", "too-deep"),
        ("1" + "+1" * 100_000, "too-deep"),
        ("\n".join(" " * i + "if 1:" for i in range(150)), "too-deep"),
        ("x = 1\0", "unreadable"),
        ("def", "unreadable"),
        (b"# coding: no-such-encoding\nx = 1", "unreadable"),
        (b"x = '\xff'", "encoding"),
        (b"# coding: utf-7\nx = 1", "encoding"),
        (b"#!/bin/python\n# -*- coding: latin-1 -*-\nx = '\xe9'", "encoding"),
        ("x = 1  # \u202e", "invisible"),
        ("a\u200bb = 1", "invisible"),
        ("x = 1" + " " * 2000 + "; y", "long-line"),
        (f"x = ('{'A' * 700}'\n  '{'A' * 700}')", "long-text"),
        ("x = []\n" * 100_000, "too-large"),
    ],
)
def test_source_that_hides_something_is_a_finding(source: str | bytes, rule: str):
    findings = found(source)
    assert rule in {finding.rule for finding in findings}
    assert "hidden" in capabilities(findings)


def test_a_component_with_too_much_source_is_not_read_to_its_end():
    findings = scan({f"m{number}.py": b"x = []\n" * 70_000 for number in range(6)})
    assert {finding.rule for finding in findings} == {"too-large"}


def test_compiled_code_is_a_finding():
    assert [row.rule for row in found(b"\x7fELF", "lib/x.SO")] == ["native-file"]


def test_other_files_are_not_read():
    assert found("import os", "twinkle.toml") == []


def test_nothing_is_executed_or_imported():
    before = set(sys.modules)
    found("raise SystemExit\nimport antigravity\nfrom no_such_package import x")
    assert "antigravity" not in set(sys.modules) - before


@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=300, deadline=None)
def test_any_bytes_can_be_scanned(content: bytes):
    assert all(finding.line >= 1 for finding in scan({"m.py": content}))
