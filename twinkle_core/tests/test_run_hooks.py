"""The hooks of a run, through a plugin that writes down what it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import twinkle.component
from twinkle import initialize
from twinkle.launch import Launch
from twinkle.local_runtime import LocalRuntime
from twinkle.platform import DEVICE_VARIABLE
from twinkle.runtime import RuntimeSettings, current_runtime, use_runtime
from twinkle_registry.registry import Registry

NAMES = ["twinkle_worker_start", "twinkle_run_start", "twinkle_step_end", "twinkle_run_end", "twinkle_checkpoint_save"]

HOOKS = """
import json
from pathlib import Path

def note(name, **told):
    with Path({log!r}).open("a") as file:
        file.write(json.dumps([name, told], default=str) + "\\n")

def twinkle_worker_start(rank, world_size, device):
    note("worker_start", rank=rank, world_size=world_size, device=device)

def twinkle_run_start(run_id, config):
    note("run_start", run_id=run_id, config=dict(config))

def twinkle_step_end(run_id, step, measurements):
    note("step_end", run_id=run_id, step=step, measurements=dict(measurements))

def twinkle_run_end(run_id, error):
    note("run_end", run_id=run_id, error=repr(error))

def twinkle_checkpoint_save(folder, step):
    note("checkpoint_save", folder=str(folder), step=step)
"""

MANIFEST = """
schema = 1
[plugin]
name = "listener"
version = "1.0.0"
api = ">=1,<2"
license = "MIT"
summary = "made for a test"
hooks = {{ module = "hooks", names = {names} }}
"""


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    with use_runtime(None):
        yield


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the plugin installed in it; it writes to ``log.jsonl`` beside it."""
    folder = tmp_path / "site"
    package = folder / f"listener_{abs(hash(tmp_path))}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "hooks.py").write_text(HOOKS.format(log=str(tmp_path / "log.jsonl")))
    (package / "twinkle.toml").write_text(MANIFEST.format(names=json.dumps(NAMES)))
    info = folder / "listener-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: listener\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[twinkle.plugins]\nlistener = {package.name}\n")
    return folder


@pytest.fixture
def told(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """What the plugin was told so far."""
    monkeypatch.syspath_prepend(str(site))
    registry = Registry(path=[str(site)], home=tmp_path / "home", hook_specifications="twinkle.hookspecs")
    monkeypatch.setattr(twinkle.component, "default_registry", lambda: registry)
    log = tmp_path / "log.jsonl"
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_run_begins_with_its_worker_and_ends_under_the_same_id(told):
    initialize(seed=3, name="mine")
    initialize(seed=4)
    names = [name for name, _ in told()]
    assert names == ["worker_start", "run_start", "run_end", "worker_start", "run_start"]
    worker, start, end = (values for _, values in told()[:3])
    assert worker == {"rank": 0, "world_size": 1, "device": "cpu"}
    assert start["run_id"] == end["run_id"]
    assert start["run_id"].startswith("mine-")
    assert end["error"] == "None"
    assert (start["config"]["seed"], start["config"]["world_size"]) == (3, 1)


def test_the_configuration_that_plugins_get_holds_no_notifier(told):
    initialize(notifier=print)
    assert "notifier" not in told()[1][1]["config"]


def test_a_process_that_takes_part_is_told_of_once(told):
    runtime = current_runtime()
    runtime.ensure_process_group()
    runtime.ensure_process_group()
    assert [name for name, _ in told()] == ["worker_start"]


def test_steps_and_checkpoints_are_told_on_the_master_only(told, tmp_path):
    for rank in (0, 1):
        runtime = LocalRuntime(RuntimeSettings(), Launch(rank, 2, rank, 2))
        runtime.hooks.end_step(1, grad_norm=0.5, learning_rates=[0.1, 0.2])
        runtime.hooks.saved_checkpoint(tmp_path, 1)
    step, checkpoint = told()
    assert step[1]["measurements"] == {"grad_norm": 0.5, "lr": 0.1, "lr/1": 0.2}
    assert checkpoint == ["checkpoint_save", {"folder": str(tmp_path), "step": 1}]


def test_where_no_plugin_asks_nothing_is_called(monkeypatch, tmp_path):
    registry = Registry(path=[str(tmp_path)], home=tmp_path / "home", hook_specifications="twinkle.hookspecs")
    monkeypatch.setattr(twinkle.component, "default_registry", lambda: registry)
    runtime = initialize()
    runtime.hooks.end_step(1, grad_norm=0.5, learning_rates=[0.1])
    assert runtime.hooks.wanted == frozenset()
    assert "hooks" not in vars(registry)  # pluggy wasn't even asked for


def test_the_exception_that_ends_a_script_is_told(site, tmp_path):
    script = "import twinkle; twinkle.initialize(name='doomed'); raise KeyError('lost')"
    path = {"PYTHONPATH": str(site), "TWINKLE_HOME": str(tmp_path / "home"), DEVICE_VARIABLE: "cpu", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], env=path, capture_output=True, text=True, check=False)
    assert "KeyError: 'lost'" in done.stderr
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last[0] == "run_end"
    assert last[1]["error"] == "KeyError('lost')"
