"""The Typer application: built-in commands, and those that plugins add through the hook ``twinkle_add_cli``.

Plugins are asked for commands only when the command isn't a built-in one, so that the built-in ones work when a plugin doesn't.
A ``TwinkleError`` becomes one readable message and exit status 1; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from twinkle import __version__
from twinkle.cli import hub, plugins, policy
from twinkle.cli import run as run_commands
from twinkle.cli.text import visible
from twinkle.errors import TwinkleError

BUILT_IN = frozenset({"hub", "plugins", "policy", "run"})
"""Commands that need no plugin."""

_ELSEWHERE = {"quickstart": "pip install 'twinkle-plugin-tiny[quickstart]'"}
"""Commands that first-party plugins add, and what installs them: shown when somebody asks for one that isn't there."""


class _WarningHandler(logging.Handler):
    """Shows what the registry warns of (a broken plugin, mostly) as one line on standard error."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(f"[yellow]Warning:[/] {escape(visible(record.getMessage()))}", soft_wrap=True, highlight=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"twinkle {__version__}")
        raise typer.Exit


def _forbid_unlocked(wanted: bool) -> None:
    """Say it to this process and those that it starts, and to a registry that was made for the plugins' commands already."""
    if wanted:
        from twinkle.component import default_registry

        os.environ["TWINKLE_LOCKED"] = "1"
        default_registry.cache_clear()


def build_app(*, with_plugins: bool = True) -> typer.Typer:
    """The application; ``with_plugins=False`` leaves out the commands of plugins and imports none of them."""
    app = typer.Typer(
        name="twinkle",
        help="Post-training for large language models, with components from anywhere.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def twinkle(
        version: Annotated[
            bool, typer.Option("--version", "-V", help="Show the version and exit.", callback=_show_version, is_eager=True)
        ] = False,
        locked: Annotated[
            bool, typer.Option("--locked", help="Use no hub reference that twinkle.lock doesn't pin.", callback=_forbid_unlocked)
        ] = False,
    ) -> None:
        """Post-training for large language models, with components from anywhere."""

    app.add_typer(hub.app, name="hub")
    app.add_typer(plugins.app, name="plugins")
    app.add_typer(policy.app, name="policy")
    app.add_typer(run_commands.app, name="run")
    if with_plugins:
        from twinkle.component import default_registry

        default_registry().hooks.call("twinkle_add_cli", app=app)
    return app


def run(arguments: list[str] | None = None) -> None:
    """Run ``twinkle`` with ``arguments`` (default: those of the process)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in arguments if not word.startswith("-")), None)
    console = Console(stderr=True)
    handler = _WarningHandler(console)
    logging.getLogger("twinkle_registry").addHandler(handler)
    try:
        app = build_app(with_plugins=command not in BUILT_IN)
        if command in _ELSEWHERE and command not in {row.name for row in app.registered_commands}:
            console.print(f"[red]Error:[/] 'twinkle {command}' comes with a plugin that isn't installed. Install it: ", end="")
            console.print(_ELSEWHERE[command], markup=False)
            sys.exit(2)
        app(arguments, prog_name="twinkle")
    except TwinkleError as error:
        console.print("[red]Error:[/] ", end="")
        console.print(visible(str(error)), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    finally:
        logging.getLogger("twinkle_registry").removeHandler(handler)
