"""A person at a terminal is asked before code from a hub runs; a script gets an error that names the command."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from twinkle.cli.ask import show
from twinkle_registry.inspection import Inspection

LOAD = """\
import sys
from twinkle.component import load_component
from twinkle.errors import TrustError
for reference in sys.argv[1:]:
    try:
        print("loaded", load_component("loss", reference).gamma)
    except TrustError as error:
        print("refused", error)
"""
MANIFEST = """\
schema = 1
[plugin]
name = "focal"
version = "1.2"
api = ">=1,<2"
requires = ["pluggy>=1"]
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
"""
SOURCE = """\
import socket
from pathlib import Path
from twinkle.loss import Loss
Path({mark!r}).touch()
class FocalLoss(Loss):
    gamma = {gamma}
    def __call__(self, inputs, outputs, **kwargs):
        raise NotImplementedError
"""


class Done(NamedTuple):
    output: str
    screen: str
    executed_when_asked: bool


class Terminal:
    """Runs the script at a terminal of its own, and types an answer each time that it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = folder / "executed"
        unset = ("CI", "RANK", "LOCAL_RANK", "TWINKLE_TRUST_REMOTE_CODE", "TWINKLE_POLICY", "TWINKLE_LOCKED")
        self.environment = {key: value for key, value in os.environ.items() if key not in unset}
        self.environment |= {"TWINKLE_HOME": str(folder / "home"), "COLUMNS": "200", "TERM": "dumb"}

    def publish(self, name: str = "focal", gamma: int = 2) -> str:
        repository = self.folder / "repositories" / name
        repository.mkdir(parents=True, exist_ok=True)
        (repository / "twinkle.toml").write_text(MANIFEST)
        (repository / "loss.py").write_text(SOURCE.format(mark=str(self.mark), gamma=gamma))
        return f"file://{repository}"

    def run(self, *references: str, typed: str, **variables: str) -> Done:
        master, slave = pty.openpty()
        command = [sys.executable, "-c", LOAD, *references]
        environment = {**self.environment, **variables}
        process = subprocess.Popen(
            command, stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True, env=environment, cwd=self.folder
        )
        os.close(slave)
        screen, executed = self._answer(master, process, typed)
        output = process.communicate(timeout=60)[0]
        os.close(master)
        return Done(output, screen, executed)

    def _answer(self, master: int, process: subprocess.Popen[str], typed: str) -> tuple[str, bool]:
        screen, asked, executed = "", 0, False
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 0.05)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            screen += chunk.decode(errors="replace")
            if screen.count("/o] ") > asked:
                asked += 1
                executed = executed or self.mark.exists()
                os.write(master, typed.encode())
        return screen, executed


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_the_files_are_shown_before_anything_runs_and_a_yes_is_remembered(terminal: Terminal):
    reference = terminal.publish()
    done = terminal.run(reference, reference, typed="d\n")
    assert done.output.splitlines() == ["loaded 2", "loaded 2"]
    assert not done.executed_when_asked
    for shown in (reference, "sha256:", "loss.py", "twinkle.toml", "pluggy>=1", "focal 1.2", "loss.py:1", "network"):
        assert shown in done.screen
    assert done.screen.count("May it be loaded?") == 1
    assert terminal.run(reference, typed="n\n") == Done("loaded 2\n", "", False)
    terminal.publish(gamma=3)
    assert "whoever was asked said no" in terminal.run(reference, typed="n\n").output


def test_the_revision_is_what_was_asked_for_and_the_commit_what_it_stands_for(terminal: Terminal):
    screen = terminal.run(terminal.publish(), typed="n\n").screen
    assert re.search(r"revision +\(the default\)", screen)
    assert re.search(r"commit +[0-9a-f]{64}", screen)


def test_a_yes_to_the_owner_holds_for_what_comes_later(terminal: Terminal):
    reference = terminal.publish()
    assert terminal.run(reference, typed="o\n").output == "loaded 2\n"
    terminal.publish(gamma=3)
    assert terminal.run(reference, typed="n\n") == Done("loaded 3\n", "", False)


@pytest.mark.parametrize("typed", ["n\n", "\n", "\x04"], ids=["no", "nothing", "end of input"])
def test_all_that_is_no_yes_is_a_no_and_executes_nothing(terminal: Terminal, typed: str):
    done = terminal.run(terminal.publish(), typed=typed)
    assert "whoever was asked said no" in done.output
    assert not terminal.mark.exists()


def test_what_is_no_answer_is_asked_again(terminal: Terminal):
    done = terminal.run(terminal.publish(), typed="y\nd\n")
    assert done.output == "loaded 2\n"
    assert done.screen.count("May it be loaded?") == 1
    assert done.screen.count("/o] ") == 2


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"RANK": "0", "LOCAL_RANK": "0"}], ids=["build", "worker"])
def test_builds_and_workers_are_not_asked(terminal: Terminal, variables: dict[str, str]):
    done = terminal.run(terminal.publish(), typed="d\n", **variables)
    assert "May it be loaded?" not in done.screen
    assert "nothing allows it to be loaded" in done.output


@pytest.fixture
def script(terminal: Terminal) -> Callable[..., str]:
    def run(*references: str) -> str:
        command = [sys.executable, "-c", LOAD, *references]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": True}
        return subprocess.run(command, env=terminal.environment, cwd=terminal.folder, **options).stdout

    return run


def test_a_script_gets_the_commands_that_allow_it(terminal: Terminal, script):
    reference = terminal.publish()
    message = script(reference)
    for command in ("info", "trust", "add"):
        assert f"twinkle hub {command} {reference}" in message
    assert not terminal.mark.exists()
    assert not (terminal.folder / "home" / "components").exists()


def test_names_cannot_draw_on_the_terminal():
    inspection = Inspection("hf://a/b", "hf://a/b", "0" * 64, files=[("\x1b[2Jgone.py", 1), ("[red]x.py", 2)])
    console = Console(width=200, record=True, file=StringIO(), highlight=False, markup=False)
    show(inspection, console)
    text = console.export_text()
    assert "\x1b" not in text
    assert "[red]x.py" in text
