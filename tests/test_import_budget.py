"""What importing Twinkle doesn't load: frameworks, libraries of the command line, and anybody's plugin.

How long it takes is measured by ``benchmarks/startup.py``; here is what makes it so.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "datasets", "ray", "pydantic", "typer", "rich", "numpy", "peft", "modelscope", "huggingface_hub"}
COMMAND = Path(sys.executable).parent / "twinkle"


def run(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True, env=environment)


def imported_by(*command: object, **variables: str) -> tuple[str, set[str]]:
    """What a Python program prints, and the top names of all that it imports."""
    done = run(*command, PYTHONPROFILEIMPORTTIME="1", **variables)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def too_much(names: set[str]) -> set[str]:
    return {name for name in names if name in HEAVY or name.startswith("twinkle_plugin")}


@pytest.mark.parametrize(
    "module",
    [
        "twinkle",
        "twinkle.advantage",
        "twinkle.component",
        "twinkle.data_format",
        "twinkle.errors",
        "twinkle.kinds",
        "twinkle.loss",
        "twinkle.metric",
        "twinkle.model",
        "twinkle.reward",
        "twinkle.template",
        "twinkle_hub",
        "twinkle_registry.registry",
    ],
)
def test_importing_a_contract_loads_no_framework_and_no_plugin(module):
    _, names = imported_by(sys.executable, "-c", f"import {module}")
    assert module.partition(".")[0] in names
    assert too_much(names) == set()


def test_the_version_is_told_without_loading_anything():
    printed, names = imported_by(COMMAND, "--version")
    assert printed.startswith("twinkle ")
    assert "twinkle" in names
    assert too_much(names) == set()
    assert "twinkle_registry" not in names


def test_listing_plugins_imports_none_of_them(tmp_path):
    _, names = imported_by(COMMAND, "plugins", "list", TWINKLE_HOME=str(tmp_path))
    assert "typer" in names
    assert {name for name in too_much(names) if name not in ("typer", "rich", "pydantic")} == set()


def test_this_budget_notices_what_it_forbids():
    _, names = imported_by(sys.executable, "-c", "import typer, twinkle_plugin_losses")
    assert too_much(names) >= {"typer", "twinkle_plugin_losses"}
