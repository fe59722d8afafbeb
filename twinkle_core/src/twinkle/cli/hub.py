"""``twinkle hub``: look into repositories on hubs, and pin, fetch, check and compare what a project uses of them.

Nothing here executes code of a repository, and nobody is asked for permission: these commands are what one runs before giving it.
What repositories say is shown with its control characters made visible, so that it can't write over what is said about them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinkle.cli.hub_store import gc
from twinkle.cli.hub_trust import revoke, trust
from twinkle.cli.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from twinkle_hub.settings import Settings
    from twinkle_registry.inspection import Inspection
    from twinkle_registry.lock import LockedComponent, LockedRepository, LockFile
    from twinkle_registry.locking import Checked, Comparison, Pins, Table
    from twinkle_registry.registry import Registry

app = typer.Typer(
    help="Look into hub repositories; pin, fetch, check and compare what the project uses of them.", no_args_is_help=True
)
app.command("gc")(gc)
app.command("trust")(trust)
app.command("revoke")(revoke)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
References = Annotated[list[str] | None, typer.Argument(metavar="[REF]...", help="Only these entries of the lock (default: all).")]

_COLORS = {"ok": "green", "fetched": "green", "missing": "yellow"}


@app.command("info")
def info(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A component, such as hf://owner/name.")], as_json: AsJson = False
) -> None:
    """Show what is in a component's repository, and whether it may be loaded. Fetches it; executes nothing of it."""
    registry = _registry()
    inspection = registry.inspect(reference)
    decisions = _decisions(registry, inspection)
    if as_json:
        _print_json({**inspection.as_dict(), "decisions": decisions})
        return
    console = _console()
    _show_inspection(console, inspection)
    _show_decisions(console, decisions)


@app.command("add")
def add(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[REF]...", help="Components, such as hf://owner/name@v1.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", metavar="REF", help="A model; may be repeated.")] = None,
    dataset: Annotated[list[str] | None, typer.Option("--dataset", metavar="REF", help="A data set; may be repeated.")] = None,
    mirror: Annotated[
        list[str] | None, typer.Option("--mirror", metavar="REF", help="Another place with the same files as the one component.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="PATTERN", help="Of models and data sets, only these files.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="PATTERN", help="Of models and data sets, not these files.")
    ] = None,
    digest: Annotated[
        bool, typer.Option("--digest", help="Fetch models and data sets now, and pin the digest of their files.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show components, models and data sets as they are now, and pin them in twinkle.lock. What is pinned may be loaded.

    Read what is shown: a component that the lock pins needs no further permission in this project.
    """
    wanted = references or []
    if not (wanted or model or dataset):
        raise typer.BadParameter("Name a component, or a model or data set with --model REF or --dataset REF.")
    if mirror and len(wanted) != 1:
        raise typer.BadParameter("--mirror belongs to one component; name exactly one REF with it.")
    pins = _pins()
    _refuse_when_locked("add")
    components = [pins.component(reference, mirror or ()) for reference in wanted]
    pick = functools.partial(pins.repository, allow_patterns=allow or None, ignore_patterns=ignore, with_digest=digest)
    entries: list[tuple[Table, LockedComponent | LockedRepository]] = [("component", entry) for entry, _ in components]
    entries += [("model", pick(reference, "model")) for reference in model or []]
    entries += [("dataset", pick(reference, "dataset")) for reference in dataset or []]
    lock = _update(pins.registry, functools.partial(_with_entries, entries))
    registry = _registry()  # one that knows the new lock
    inspections = [(inspection, _decisions(registry, inspection)) for _, inspection in components]
    if as_json:
        shown = [{**inspection.as_dict(), "decisions": decisions} for inspection, decisions in inspections]
        rows = [{"table": table, **_row(entry)} for table, entry in entries]
        _print_json({"lock": str(lock.file), "entries": rows, "inspections": shown})
        return
    console = _console()
    for inspection, decisions in inspections:
        _show_inspection(console, inspection)
        _show_decisions(console, decisions)
    for table, entry in entries:
        console.print(f"[green]locked[/] {table} {_safe(entry.reference)} at {_safe(entry.commit)}", soft_wrap=True)
    console.print(f"In {_safe(str(lock.file))}: commit it.", soft_wrap=True)


@app.command("lock")
def lock_command(
    references: References = None,
    update: Annotated[bool, typer.Option("--update", help="Write what has moved.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask what every entry of the lock stands for now, and show what has moved. Writes it only with --update."""
    from twinkle_registry.locking import entries

    if update:
        _refuse_when_locked("lock --update")
    pins = _pins()
    lock = pins.registry.lock
    moves = [pins.move(table, entry) for table, entry in entries(lock, references or ())]
    moved = [move for move in moves if move.moved]
    if update and moved:
        lock = _update(pins.registry, functools.partial(_with_entries, [(move.table, move.after) for move in moved]))
    if as_json:
        rows = [
            {"table": move.table, "moved": move.moved, "before": _row(move.before), "after": _row(move.after)} for move in moves
        ]
        _print_json({"lock": str(lock.file), "written": bool(update and moved), "entries": rows})
        return
    console = _console()
    for move in moved:
        same = " (the same files)" if move.before.digest is not None and move.before.digest == move.after.digest else ""
        console.print(f"[yellow]moved[/] {move.table} {_safe(move.before.reference)}{same}", soft_wrap=True)
        console.print(f"  {_safe(move.before.commit)} -> {_safe(move.after.commit)}", soft_wrap=True)
        if not same and move.table == "component":
            console.print(f"  See what changed: twinkle hub diff {_safe(move.before.reference)}", soft_wrap=True)
    what_now = f" Written to {_safe(str(lock.file))}." if update else " Write it: twinkle hub lock --update"
    if moves:
        console.print(f"{len(moved)} of {len(moves)} entries have moved.{what_now if moved else ''}", soft_wrap=True)
    else:
        _say_empty(console, lock)


@app.command("sync")
def sync(references: References = None, as_json: AsJson = False) -> None:
    """Fetch everything that the lock pins, for going offline. Exits with status 1 where something can't be had as it was locked."""
    from twinkle_registry.locking import entries

    pins = _pins()
    checked = [pins.sync(table, entry) for table, entry in entries(pins.registry.lock, references or ())]
    _report(pins.registry.lock, checked, as_json)


@app.command("verify")
def verify(
    references: References = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also ask whether the references still stand for what is pinned.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare what is stored with the lock. Exits with status 1 where it has drifted; what isn't stored hasn't."""
    from twinkle_registry.locking import entries

    pins = _pins()
    checked = []
    for table, entry in entries(pins.registry.lock, references or ()):
        checked.append(pins.stored(table, entry))
        if remote:
            checked.append(pins.remote(table, entry))
    _report(pins.registry.lock, checked, as_json)


@app.command("diff")
def diff(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A component; with --model or --dataset one of these.")],
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="[A B | A..B]", help="Two revisions; 'lock' is the pinned one. Default: lock..REF")
    ] = None,
    model: Annotated[bool, typer.Option("--model", help="REF is a model: its text is compared, other files by name.")] = False,
    dataset: Annotated[bool, typer.Option("--dataset", help="REF is a data set: likewise.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what changed in the files between two revisions, or from the locked one to the current one."""
    from twinkle_registry.locking import compare, compare_repository

    pins = _pins()
    before, after = _two_revisions(revisions or [])
    if model or dataset:
        found = compare_repository(pins, reference, "dataset" if dataset else "model", before, after)
    else:
        found = compare(pins, reference, before, after)
    if as_json:
        from dataclasses import asdict

        _print_json({"before": asdict(found.before), "after": asdict(found.after), "files": [asdict(row) for row in found.files]})
        return
    _show_comparison(_console(), found)


def _show_comparison(console: Console, found: Comparison) -> None:
    for side, label in ((found.before, "a"), (found.after, "b")):
        console.print(f"[bold]{label}[/] {_safe(side.source)}{f' sha256:{side.digest}' if side.digest else ''}", soft_wrap=True)
    for row in found.files:
        if not row.diff:
            console.print(f"{row.change}: {_safe(row.path)} (not text, or too long to compare by lines)", soft_wrap=True)
        for line in row.diff.split("\n")[:-1]:
            color = (
                "green"
                if line.startswith("+")
                else "red"
                if line.startswith("-")
                else "cyan"
                if line.startswith("@@")
                else "default"
            )
            console.print(f"[{color}]{_safe(line)}[/]", soft_wrap=True)
    if not found.files:
        console.print("The files are the same.")


def _two_revisions(words: Sequence[str]) -> tuple[str, str | None]:
    """The two sides of a comparison; ``None`` is what the reference stands for."""
    if not words:
        return "lock", None
    if len(words) == 2:
        return words[0], words[1]
    before, dots, after = words[0].partition("..")
    if len(words) > 2 or not dots or not before:
        raise typer.BadParameter("Give two revisions (A B or A..B), or none to compare the locked one with the current one.")
    return before, after or None


def _registry() -> Registry:
    """A registry of this project; unlike the process's own, it asks nobody whether code may be loaded."""
    from twinkle_registry.registry import Registry

    return Registry(hook_specifications="twinkle.hookspecs")


def _settings() -> Settings:
    from twinkle_hub.settings import Settings

    return Settings.from_environment()


def _pins() -> Pins:
    from twinkle_registry.locking import Pins
    from twinkle_registry.store import ComponentStore

    settings = _settings()
    return Pins(_registry(), ComponentStore(settings.home), settings.offline)


def _update(registry: Registry, change: Callable[[LockFile], LockFile]) -> LockFile:
    from twinkle_registry.lock import update_lock

    return update_lock(registry.lock.file, change, home=_settings().home)


def _refuse_when_locked(command: str) -> None:
    if _settings().locked:
        from twinkle.errors import LockError

        raise LockError(f"twinkle hub {command} changes the lock, which TWINKLE_LOCKED (or --locked) forbids. Unset it for this.")


def _with_entries(entries: Sequence[tuple[Table, LockedComponent | LockedRepository]], lock: LockFile) -> LockFile:
    from twinkle_registry.lock import LockedComponent

    for table, entry in entries:
        if isinstance(entry, LockedComponent):
            lock = lock.with_component(entry)
        else:
            lock = lock.with_repository(entry, "dataset" if table == "dataset" else "model")
    return lock


def _decisions(registry: Registry, inspection: Inspection) -> list[dict[str, Any]]:
    """Whether each kind of the repository's components may be loaded, and what says so."""
    from twinkle_registry.errors import TrustError
    from twinkle_registry.trust import LoadRequest

    found = []
    for kind in sorted({component.kind for component in inspection.components}) or ["component"]:
        request = LoadRequest(
            "hub",
            inspection.reference,
            kind,
            repository=inspection.repository,
            revision=inspection.revision,
            digest=inspection.digest,
            commit=inspection.commit,
            needs=inspection.needs,
            pure=inspection.pure,
            capabilities=inspection.capabilities,
        )
        try:
            found.append({"kind": kind, "allowed": True, "why": registry.authorize(request).reason})
        except TrustError as error:
            look = f" See what is in it: twinkle hub info {inspection.reference}."  # they do, right now
            found.append({"kind": kind, "allowed": False, "why": str(error).replace(look, "")})
    return found


def _show_inspection(console: Console, inspection: Inspection) -> None:
    plugin = inspection.plugin
    console.print(f"[bold]{_safe(inspection.reference)}[/]", soft_wrap=True)
    rows = {
        "owner": inspection.owner or "unknown",
        "revision": inspection.revision or "the default",
        "commit": inspection.commit or "unknown",
        "digest": f"sha256:{inspection.digest}",
        "plugin": " ".join(str(plugin[key]) for key in ("name", "version", "license", "summary") if plugin.get(key))
        or "no manifest",
        "needs": ", ".join(inspection.needs) or "nothing",
        "files": ", ".join(f"{path} ({size})" for path, size in inspection.files),
        "components": ", ".join(f"{row.kind} {row.name}{' (pure)' if row.pure else ''}" for row in inspection.components)
        or "unlisted",
        "can do": ", ".join(inspection.capabilities) or "nothing that the scan knows",
    }
    if inspection.problem:
        rows["problem"] = inspection.problem
    for label, value in rows.items():
        console.print(f"  {label}: {_safe(value)}", soft_wrap=True)
    for finding in inspection.findings:
        console.print(f"  [yellow]{_safe(finding.file)}:{finding.line}[/] {_safe(finding.message)}", soft_wrap=True)


def _show_decisions(console: Console, decisions: Sequence[Mapping[str, Any]]) -> None:
    for row in decisions:
        mark = "[green]may be loaded[/]" if row["allowed"] else "[red]may not be loaded[/]"
        console.print(f"  {_safe(row['kind'])}: {mark}: {_safe(row['why'])}", soft_wrap=True)


def _report(lock: LockFile, checked: Sequence[Checked], as_json: bool) -> None:
    """Show how entries compare with the lock; exit with status 1 where one drifted, or couldn't be told."""
    from dataclasses import asdict

    from twinkle_registry.locking import DRIFT

    wrong = [row for row in checked if row.state in DRIFT or row.state == "failed"]
    if as_json:
        _print_json({"lock": str(lock.file), "ok": not wrong, "entries": [asdict(row) for row in checked]})
    else:
        console = _console()
        for row in checked:
            color = _COLORS.get(row.state, "red")
            console.print(f"[{color}]{row.state}[/] {row.table} {_safe(row.reference)}: {_safe(row.message)}", soft_wrap=True)
        if not checked:
            _say_empty(console, lock)
    if wrong:
        raise typer.Exit(1)


def _say_empty(console: Console, lock: LockFile) -> None:
    console.print(f"{_safe(str(lock.file))} pins nothing. Pin something: twinkle hub add REF", soft_wrap=True)


def _row(entry: LockedComponent | LockedRepository) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(entry)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _safe(text: str) -> str:
    """``text`` of a stranger for a console: its markup is no markup, and its control characters are shown."""
    from rich.markup import escape

    return escape(visible(text))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
