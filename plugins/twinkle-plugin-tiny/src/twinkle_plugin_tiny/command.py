"""``twinkle quickstart``: fine-tune the tiny model and show what came of it.

Shows, and leaves the doing to ``quickstart``: on a terminal with colour and a progress bar, elsewhere in plain lines without
control characters, with ``--json`` as one object. Imports only what an option's definition needs.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinkle_plugin_tiny.quickstart import STEPS, OnStep, Quickstart, QuickstartSettings

if TYPE_CHECKING:
    from rich.console import Console

_INSTALL = "pip install 'twinkle-plugin-tiny[quickstart]'"
_NEEDED = {
    "matplotlib": "matplotlib",
    "plotext": "plotext",
    "twinkle_plugin_data": "twinkle-plugin-data",
    "twinkle_plugin_losses": "twinkle-plugin-losses",
    "twinkle_plugin_metrics": "twinkle-plugin-metrics",
    "twinkle_plugin_templates": "twinkle-plugin-templates",
    "twinkle_plugin_transformers": "twinkle-plugin-transformers",
}
"""Modules of the extra ``quickstart``, and the distributions that hold them."""

_LINES = 10
"""How many lines tell of progress where there is no terminal."""

_NEXT = """\
Next:
  The loop that this ran is a script of twenty lines: cookbook/quickstart.py. Change it and run it.
  What the command did, and what else can be changed: docs/quickstart.md
  Everything that can be put together: twinkle plugins list"""


def quickstart(
    name: Annotated[str, typer.Option(help="The name that the model is to learn.")] = QuickstartSettings.name,
    author: Annotated[str, typer.Option(help="Who is to have developed it.")] = QuickstartSettings.author,
    steps: Annotated[int, typer.Option(help="Optimizer steps of 8 rows each.")] = STEPS,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run on the same machine.")] = QuickstartSettings.seed,
    output: Annotated[Path, typer.Option(help="Where the checkpoint and the loss curve go.")] = QuickstartSettings.output,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Fine-tune a small real model with LoRA: in a minute it learns the name and author that you give."""
    from rich.console import Console

    settings = QuickstartSettings(name, author, steps, seed, output)
    check_requirements()
    _prepare_output(output)
    console = Console(quiet=as_json, highlight=False)
    with _without_library_bars(), _one_thread():
        report = _run(settings, console)
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))


def check_requirements() -> None:
    """See that everything of the extra ``quickstart`` is installed, before any work is done.

    Raises:
        MissingRequirementError: something isn't; the message holds the command that installs it.
    """
    from twinkle.errors import MissingRequirementError

    missing = [distribution for module, distribution in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingRequirementError(f"twinkle quickstart needs {', '.join(missing)}. Install what it needs: {_INSTALL}")


def _prepare_output(folder: Path) -> None:
    """See that the folder can be written to before a minute of training, not after it."""
    from twinkle.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The output folder {folder} can't be made: {error.strerror or error}. Give another one: --output PATH"
        ) from None


def _run(settings: QuickstartSettings, console: Console) -> dict[str, Any]:
    from twinkle_plugin_tiny.curve import draw_curve, save_curve

    console.print(
        f"Teaching a model of 4.5 million parameters that it is {settings.name!r} by {settings.author!r}.",
        markup=False,
        soft_wrap=True,
    )
    run = Quickstart(settings)
    before = run.ask()
    _show_answers(console, "Before", before)
    console.print(f"Fine-tuning with LoRA on {run.rows} questions and answers, {settings.steps} steps.")
    started = time.perf_counter()
    with _progress(console, settings.steps) as on_step:
        run.train(on_step)
    seconds = time.perf_counter() - started
    checkpoint = run.save()
    picture = settings.output / "loss.png"
    save_curve(run.losses, picture)
    console.print(draw_curve(run.losses, width=min(console.width, 100)), style="cyan", markup=False)
    after = run.ask()
    _show_answers(console, "After", after)
    learned = all(map(run.learned, after.values()))
    if not learned:
        console.print(
            f"It hasn't learned it for every question yet; give it more time: --steps {2 * settings.steps}", style="yellow"
        )
    console.print(f"Trained in {seconds:.0f} s.")
    for label, path in (("Checkpoint (a PEFT adapter)", checkpoint), ("Loss curve", picture)):
        console.print(f"{label}: {path}", markup=False, soft_wrap=True)
    console.print(_NEXT, markup=False, soft_wrap=True)
    return {
        "name": settings.name,
        "author": settings.author,
        "steps": settings.steps,
        "seed": settings.seed,
        "before": before,
        "after": after,
        "learned": learned,
        "losses": run.losses,
        "seconds": round(seconds, 3),
        "checkpoint": str(checkpoint),
        "loss_curve": str(picture),
    }


def _show_answers(console: Console, title: str, answers: Mapping[str, str]) -> None:
    console.print(title, style="bold")
    width = max(map(len, answers))
    for question, answer in answers.items():
        console.print(f"  {question:<{width}}  {' '.join(answer.split())}", markup=False, soft_wrap=True)


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[OnStep]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        every = max(1, steps // _LINES)

        def tell(step: int, loss: float) -> None:
            if step == 1 or step % every == 0 or step == steps:
                console.print(f"step {step} of {steps}: loss {loss:.3f}")

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=steps, loss=float("nan"))
        yield lambda step, loss: bar.update(task, completed=step, loss=loss)


@contextmanager
def _without_library_bars() -> Iterator[None]:
    """Keep quiet the bars that Transformers draws while it loads, and leave its settings as they were."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread, and leave PyTorch's setting as it was.

    Each of the tiny model's operations takes microseconds. Several threads wait for each other longer than that, and on a busy
    machine spin for each other's share of it: 2 threads on 2 busy cores took 300 s for what one does in 40 s.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
