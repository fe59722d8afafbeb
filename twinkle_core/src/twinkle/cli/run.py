"""``twinkle run``: what a checkpoint's run was made of, what changed between two, and whether it is what is here now.

Reads the bill of materials that every checkpoint holds (``twinkle_run.json``). Asks no hub and executes no component.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from twinkle.run_diff import Difference

app = typer.Typer(help="Show, compare and verify what runs were made of.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Checkpoint = Annotated[Path, typer.Argument(help="The folder of a checkpoint.")]


@app.command("show")
def show(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """Show what the run of a checkpoint was made of: model, components, data, seeds, mesh and packages."""
    from twinkle.run_record import read_run

    record = read_run(checkpoint)
    if as_json:
        _print_json(record)
        return
    for line in _lines(record):
        typer.echo(line)


@app.command("diff")
def diff(before: Checkpoint, after: Checkpoint, as_json: AsJson = False) -> None:
    """Say what changed between the runs of two checkpoints. Exits with status 1 where anything did."""
    from twinkle.run_diff import diff_runs
    from twinkle.run_record import read_run

    found = diff_runs(read_run(before), read_run(after))
    _report(found, as_json, nothing=f"Nothing changed between the runs of {before} and {after}.")


@app.command("verify")
def verify(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """Check that a checkpoint is whole, and that what it was made of is what is installed and cached here.

    Exits with status 1 where anything differs.
    """
    from twinkle.run_verify import verify_run

    _report(verify_run(checkpoint), as_json, nothing=f"{checkpoint} is whole, and what it was made of is what is here.")


def _report(found: Sequence[Difference], as_json: bool, *, nothing: str) -> None:
    if as_json:
        _print_json([row.as_plain() for row in found])
    else:
        for line in map(str, found):
            typer.echo(line)
        if not found:
            typer.echo(nothing)
    if found:
        raise typer.Exit(1)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _lines(record: Mapping[str, Any]) -> list[str]:
    from twinkle.run_diff import name_of

    rows = [("run", _options(record["run"])), ("model", _options(record["model"]))]
    for row in record["components"]:
        source = row["source"]
        where = " ".join(str(source[key]) for key in ("repository", "commit", "digest") if source.get(key))
        rows.append((row["kind"], " ".join(filter(None, [name_of(row), _options(row["config"] or {}), where]))))
    for row in record["repositories"]:
        identity = " ".join(f"{key} {row[key]}" for key in ("commit", "digest") if row.get(key))
        chosen = [_options(values) for values in (*row.get("uses", []), row.get("patterns", {}))]
        rows.append((row["kind"], " ".join(filter(None, [row["reference"], identity, *chosen]))))
    if record.get("script"):
        rows.append(("script", _options(record["script"])))
    rows.append(("packages", ", ".join(f"{name} {version}" for name, version in record["packages"].items())))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _options(values: Mapping[str, Any]) -> str:
    """The values that say something: nothing that is absent, off, or a size of one."""
    return ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in _told(values).items())


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: _told(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in told.items() if _says_something(key, value)}


def _says_something(key: str, value: Any) -> bool:
    return value is not None and value is not False and value not in ({}, []) and not (key.endswith("_size") and value == 1)
