"""``twinkle plugins``: what is installed, what it provides, where a name leads, and whether it works.

``list``, ``info`` and ``trace`` execute nothing; ``doctor`` imports everything that is installed, each part contained, so that it
works when plugins don't.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twinkle.cli.doctor import Finding, examine
from twinkle.cli.trace import trace
from twinkle.component import default_registry
from twinkle.errors import ComponentNotFoundError
from twinkle.kinds import KINDS, get_kind
from twinkle_registry.rows import ComponentRow, PluginRow

app = typer.Typer(help="Show installed plugins and their components.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _complete_name(incomplete: str) -> list[str]:
    registry = default_registry()
    names = {row.distribution for row in registry.plugins()} | {row.name for row in registry.components()}
    return sorted(name for name in names if name.startswith(incomplete))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@app.command("list")
def list_plugins(
    kind: Annotated[str | None, typer.Option(help="Only components of this kind.", autocompletion=_complete_kind)] = None,
    as_json: AsJson = False,
) -> None:
    """List the installed plugins and the components that each provides. Imports none of them."""
    if kind is not None:
        get_kind(kind)
    registry = default_registry()
    rows = registry.components(kind)
    if as_json:
        _print_json(
            {
                "plugins": [row.as_dict() for row in registry.plugins()],
                "components": [row.as_dict() for row in rows],
                "problems": [problem.as_dict() for problem in registry.problems()],
            }
        )
        return
    names: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        names.setdefault(row.location, {}).setdefault(row.kind, []).append(row.name)
    plugins = [plugin for plugin in registry.plugins() if kind is None or plugin.location in names]
    console = Console(highlight=False)
    if not plugins:
        console.print(f"No {kind + ' components' if kind else 'plugins'} installed. Plugins are packages named twinkle-plugin-*.")
    for plugin in plugins:
        _show_plugin(console, plugin, names.get(plugin.location, {}))


def _show_plugin(console: Console, plugin: PluginRow, names: Mapping[str, list[str]]) -> None:
    console.print(f"[bold]{plugin.distribution}[/] [dim]{plugin.version}[/]  {escape(plugin.summary)}")
    grid = Table.grid(padding=(0, 2, 0, 0))
    for kind, found in sorted(names.items()):
        grid.add_row(f"  [cyan]{kind}[/]", escape(", ".join(sorted(found))))
    console.print(grid)


@app.command("info")
def info(
    name: Annotated[str, typer.Argument(help="A plugin's distribution, or a component's name.", autocompletion=_complete_name)],
    as_json: AsJson = False,
) -> None:
    """Show one plugin, or every component of one name, with its configuration. Imports none of them."""
    registry = default_registry()
    plugins = [row for row in registry.plugins() if name in (row.distribution, row.name)]
    distributions = {row.distribution for row in plugins}
    wanted = name.rpartition("/")
    components = [
        row
        for row in registry.components()
        if row.distribution in distributions or (row.name == wanted[2] and wanted[0] in ("", row.distribution))
    ]
    if not plugins and not components:
        import difflib

        known = [row.distribution for row in registry.plugins()] + [row.name for row in registry.components()]
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(repr(word) for word in near)}?" if near else ""
        raise ComponentNotFoundError(f"No plugin and no component is named {name!r}.{hint} See all: twinkle plugins list")
    if as_json:
        _print_json({"plugins": [row.as_dict() for row in plugins], "components": [row.as_dict() for row in components]})
        return
    console = Console()
    for plugin in plugins:
        console.print(f"[bold]{plugin.distribution}[/] {plugin.version} — {escape(plugin.summary)}")
        for label, value in (("license", plugin.license), ("package", plugin.package), ("location", plugin.location)):
            console.print(f"  {label}: {escape(str(value))}", soft_wrap=True)
    for row in components:
        _show_component(console, row)


def _show_component(console: Console, row: ComponentRow) -> None:
    pure = ", pure" if row.pure else ""
    console.print(f"\n[bold]{escape(row.name)}[/] ({row.kind}{pure}) from {row.distribution} {row.version}, {escape(row.entry)}")
    if not row.config:
        return
    table = Table("option", "type", "default", "allowed", "meaning", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for option, field in row.config.items():
        bounds = [f"{label} {field[key]}" for label, key in (("≥", "min"), ("≤", "max")) if field.get(key) is not None]
        allowed = " | ".join(map(str, field["choices"])) if field.get("choices") else ", ".join(bounds)
        default = field.get("default")
        table.add_row(
            option, str(field.get("type", "")), "" if default is None else str(default), allowed, escape(field.get("doc") or "")
        )
    console.print(table)


app.command("trace")(trace)


@app.command("doctor")
def doctor(as_json: AsJson = False) -> None:
    """Check this installation: platform, plugins, the cache of components from hubs, and the project's lock.

    Exits with status 1 where something is wrong.
    """
    findings = examine()
    if as_json:
        _print_json([finding.as_dict() for finding in findings])
    else:
        _show_findings(findings)
    if any(finding.status == "error" for finding in findings):
        raise typer.Exit(1)


def _show_findings(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        # Not a table: its columns would break the commands, which are there to be copied.
        mark = " " * (7 - len(finding.status)) + _MARKS[finding.status]
        console.print(f"{mark}  {escape(finding.subject.ljust(width))}  {escape(finding.message)}", soft_wrap=True)
