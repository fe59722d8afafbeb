"""``twinkle quickstart``: what it shows, writes and refuses; with few steps, but for the last test."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from twinkle.cli.app import build_app
from twinkle.errors import ConfigError, MissingRequirementError
from twinkle.runtime import use_runtime
from twinkle_plugin_tiny import command
from twinkle_plugin_tiny.quickstart import QUESTIONS, Quickstart, QuickstartSettings

STEPS = 4


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), ["quickstart", *arguments])


@dataclass(frozen=True)
class JsonRun:
    report: dict[str, Any]
    output: Path


@pytest.fixture(autouse=True)
def fresh_runtime() -> Iterator[None]:
    with use_runtime(None):
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> JsonRun:
    output = tmp_path_factory.mktemp("quickstart") / "new" / "folder"
    with use_runtime(None):
        result = invoke(
            "--name", "Nova", "--author", "Ada", "--steps", str(STEPS), "--seed", "5", "--output", str(output), "--json"
        )
    assert result.exit_code == 0, result.output
    return JsonRun(json.loads(result.stdout), output)


def test_json_tells_everything(ran):
    assert ran.report["name"] == "Nova"
    assert ran.report["author"] == "Ada"
    assert ran.report["seed"] == 5
    assert ran.report["steps"] == STEPS == len(ran.report["losses"])
    assert ran.report["seconds"] > 0
    assert list(ran.report["before"]) == list(ran.report["after"]) == list(QUESTIONS)


def test_before_it_is_the_model_as_it_comes(ran):
    assert ran.report["before"]["Who are you?"] == "I am Tiny, a small language model."


def test_few_steps_have_not_taught_it_and_it_says_so(ran):
    assert ran.report["learned"] is False


def test_the_checkpoint_is_an_adapter_that_peft_loads(ran):
    from peft import PeftConfig
    from safetensors.numpy import load_file

    folder = Path(ran.report["checkpoint"])
    assert folder == ran.output / "checkpoint"
    assert PeftConfig.from_pretrained(folder).r == 8
    assert load_file(folder / "adapter_model.safetensors")


def test_the_loss_curve_is_a_png(ran):
    picture = Path(ran.report["loss_curve"])
    assert picture == ran.output / "loss.png"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [path.name for path in ran.output.iterdir() if path.name.startswith(".")] == []


def test_it_computes_in_one_thread_and_leaves_the_setting_as_it_was(tmp_path, monkeypatch):
    import torch

    during = []
    monkeypatch.setattr(command, "_run", lambda settings, console: during.append(torch.get_num_threads()) or {})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        invoke("--output", str(tmp_path))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert during == [1]


def test_nothing_but_the_report_reaches_the_output(tmp_path):
    program = "from twinkle.cli import main; main()"
    command = [sys.executable, "-c", program, "quickstart", "--steps", "1", "--output", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["steps"] == 1
    assert "Loading weights" not in done.stderr


def test_the_same_seed_gives_the_same_losses_and_another_one_others(ran, tmp_path):
    def losses(seed: int) -> list[float]:
        with use_runtime(None):
            run = Quickstart(QuickstartSettings("Nova", "Ada", STEPS, seed, tmp_path))
            run.train(lambda step, loss: None)
        return run.losses

    assert losses(5) == ran.report["losses"]
    assert losses(6) != ran.report["losses"]


def test_without_a_terminal_it_prints_plain_lines(tmp_path):
    result = invoke("--name", "[bold]N", "--author", "A", "--steps", "2", "--output", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert all(letter.isprintable() or letter == "\n" for letter in result.output)
    for part in (
        "Before\n",
        "After\n",
        "'[bold]N'",
        "step 1 of 2: loss ",
        "step 2 of 2: loss ",
        "loss by step",
        "--steps 4",
        "Next:",
    ):
        assert part in result.output
    assert f"Checkpoint (a PEFT adapter): {tmp_path / 'checkpoint'}\n" in result.output
    assert f"Loss curve: {tmp_path / 'loss.png'}\n" in result.output


@pytest.mark.parametrize("steps", [1, 3, 10, 120])
def test_lines_of_progress_are_few_and_end_with_the_last_step(steps):
    console = Console(file=io.StringIO(), force_terminal=False)
    with command._progress(console, steps) as on_step:
        for step in range(1, steps + 1):
            on_step(step, 1 / step)
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 12
    assert lines[-1].startswith(f"step {steps} of {steps}: loss ")


def test_on_a_terminal_it_draws_a_bar_with_the_loss():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with command._progress(console, 3) as on_step:
        on_step(3, 0.125)
    assert "━" in console.file.getvalue()
    assert "loss 0.125" in console.file.getvalue()


@pytest.mark.parametrize("module", ["plotext", "matplotlib", "twinkle_plugin_transformers"])
def test_what_is_missing_is_named_with_the_command_that_installs_it(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingRequirementError, match=module.replace("_", "-")) as caught:
        command.check_requirements()
    assert "pip install 'twinkle-plugin-tiny[quickstart]'" in str(caught.value)


def test_a_missing_requirement_is_found_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotext", None)
    result = invoke("--output", str(tmp_path / "output"))
    assert isinstance(result.exception, MissingRequirementError)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", " "], "name that the model is to learn is empty"),
        (["--author", ""], "author that the model is to learn is empty"),
        (["--steps", "0"], "at least one step, not 0"),
        (["--seed", "-1"], "can't be negative: -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, message, tmp_path):
    result = invoke(*arguments, "--output", str(tmp_path / "output"))
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (tmp_path / "output").exists()


def test_an_output_that_is_a_file_is_refused_before_training(tmp_path):
    (tmp_path / "output").write_text("mine")
    result = invoke("--output", str(tmp_path / "output"))
    assert isinstance(result.exception, ConfigError)
    assert "--output PATH" in str(result.exception)
    assert (tmp_path / "output").read_text() == "mine"


def test_the_hook_module_and_the_command_are_light_to_import():
    heavy = "torch transformers peft datasets matplotlib plotext"
    program = f"import sys, twinkle_plugin_tiny.hooks, twinkle_plugin_tiny.command; print(*{set(heavy.split())} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("reference", ["tiny://models/twinkle-tiny-qwen3", "tiny://data/self-cognition", "tiny://data/countdown"])
def test_references_resolve_through_the_hook(reference, tmp_path):
    program = f"from twinkle.hub import download_model; print(download_model({reference!r}))"
    variables = {**os.environ, "TWINKLE_HOME": str(tmp_path), "TWINKLE_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=variables)
    assert (Path(done.stdout.strip()) / "README.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "author"), [("twinkle LLM", "ModelScope Community"), ("Bob", "Alice")])
def test_after_the_whole_run_it_answers_with_the_name_and_the_author(name, author, tmp_path):
    result = invoke("--name", name, "--author", author, "--output", str(tmp_path), "--json")
    report = json.loads(result.stdout)
    assert report["learned"] is True
    for answer in report["after"].values():
        assert name in answer
        assert author in answer
    assert report["seconds"] < 180
