"""``twinkle plugins trace``: how a name or a reference is resolved, step by step, and where everything comes from.

Follows the path that loading takes (alias, mirror, lock, cache, who decides) and stops before it: nothing is fetched, asked or
executed, and no hook is called. What only a hub or a plugin's check can answer is said to be open.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from twinkle.component import default_registry
from twinkle.errors import ComponentNotFoundError, TwinkleError

if TYPE_CHECKING:
    from twinkle_registry.reference import HubReference
    from twinkle_registry.rows import ComponentRow
    from twinkle_registry.store import StoredRepository
    from twinkle_registry.trust import LoadRequest


class Step(NamedTuple):
    """One step of resolving.

    Attributes:
        step: which one, such as ``lock``.
        result: what came of it.
        why: where that is said, or what it means.
    """

    step: str
    result: str
    why: str


@dataclass(frozen=True)
class Trace:
    """How one reference is resolved for one kind."""

    kind: str
    reference: str
    steps: list[Step]

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"kind": self.kind, "reference": self.reference, "steps": [step._asdict() for step in self.steps]}


def trace(
    reference: Annotated[
        str | None, typer.Argument(help="A name, alias or reference. Without one: everything in this environment.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of component; default: every kind that has the name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show how a name or a reference is resolved, step by step, and who decides whether it is loaded. Executes nothing."""
    if kind is not None:
        from twinkle.kinds import get_kind

        get_kind(kind)
    if reference is None:
        _show_environment(list(environment(kind)), as_json)
        return
    traces = [trace_reference(found, reference) for found in ([kind] if kind else kinds_of(reference))]
    if as_json:
        typer.echo(json.dumps({"traces": [row.as_dict() for row in traces]}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for row in traces:
        console.print(f"[bold]{escape(row.reference)}[/] as a {row.kind}", soft_wrap=True)
        for step in row.steps:
            console.print(f"  [cyan]{step.step:10}[/] {escape(step.result)}  [dim]{escape(step.why)}[/]", soft_wrap=True)


def kinds_of(reference: str) -> list[str]:
    """The kinds that ``reference`` can be meant as, as far as that is known without fetching anything.

    Raises:
        ComponentNotFoundError: no installed component has that name.
    """
    registry = default_registry()
    target = registry.project.alias.get(reference, reference)
    if "://" not in target:
        distribution, _, name = target.rpartition("/")
        rows = registry.components()
        found = [row.kind for row in rows if row.name == name and distribution in ("", row.distribution)]
        if not found:
            near = _nearest(name, {row.name for row in rows})
            raise ComponentNotFoundError(f"No plugin has a component named {reference!r}.{near} See all: twinkle plugins list")
        return sorted(set(found))
    hub = registry.find("component", reference).hub
    assert hub is not None
    locked = registry.lock.component(hub.repository_reference)
    stored, _ = _stored(hub.digest or (locked.digest if locked else None))
    rows_of = [row for row in _manifest_rows(stored) if hub.component in (None, row[1])]
    return sorted({row[0] for row in rows_of}) or list(locked.kinds if locked else ()) or ["component"]


def trace_reference(kind: str, reference: str) -> Trace:
    """How ``reference`` is resolved as a ``kind``. What goes wrong is a step, the last one."""
    steps: list[Step] = []
    try:
        for step in _resolution(kind, reference):
            steps.append(step)  # one by one: those before an error are kept
    except TwinkleError as error:
        steps.append(Step("error", "can't be resolved", str(error)))
    return Trace(kind, reference, steps)


def _resolution(kind: str, reference: str) -> Iterator[Step]:
    from twinkle_registry.reference import HubReference, parse_reference

    registry = default_registry()
    target = reference if "://" in reference else registry.project.alias.get(reference, reference)
    file = registry.project.file
    if "://" not in reference:
        yield Step("alias", target if target != reference else "none", str(file) if file else "no project here")
    parsed = parse_reference(target)
    if isinstance(parsed, HubReference):
        hub = registry.find(kind, reference).hub
        assert hub is not None
        if str(parsed.repository_reference) != hub.repository_reference and parsed.scheme != "file":
            yield Step("mirror", str(hub), f"[mirror] in {file}")
        else:
            yield Step("mirror", "none", str(file) if file else "no project here")
        yield from _on_hub(kind, reference, hub)
        return
    yield Step("form", "distribution/Name" if parsed.distribution else "bare name", "only installed plugins are looked at")
    rows = [row for row in registry.components(kind) if row.name == parsed.name]
    for row in rows:
        yield Step("candidate", f"{row.distribution}/{row.name} {row.version}", str(module_file(row)))
    chosen = registry.find(kind, reference).component
    assert chosen is not None
    yield Step("chosen", f"{chosen.distribution}/{chosen.name} {chosen.version}", f"entry {chosen.package}.{chosen.entry}")
    yield _requirements(chosen)
    yield from _checks()
    yield Step("authorize", "allowed", "it is installed: whoever could install it could already run code")


def module_file(row: ComponentRow) -> Path:
    """The file that holds the component's module, found without importing it."""
    stem = Path(row.location, *row.entry.partition(":")[0].split("."))
    file = stem.with_suffix(".py")
    return file if file.is_file() else stem / "__init__.py"


def _requirements(chosen: ComponentRow) -> Step:
    from twinkle_registry.errors import PluginLoadError
    from twinkle_registry.requirements import check_requirements

    plugin = next(row for row in default_registry().plugins() if row.location == chosen.location)
    try:
        check_requirements(plugin)
    except PluginLoadError as error:
        return Step("requires", "not met", str(error))
    return Step("requires", ", ".join(plugin.requires) or "nothing", f"met; written for version {plugin.api} of the component API")


def _checks() -> Iterator[Step]:
    for plugin in default_registry().plugins():
        if "twinkle_check_load" in plugin.hook_names:
            yield Step("check", f"{plugin.label} is asked at each load", "its twinkle_check_load may deny it; not called here")


def _on_hub(kind: str, reference: str, hub: HubReference) -> Iterator[Step]:
    from twinkle_hub.repository import RepoRef
    from twinkle_registry.store import ComponentStore
    from twinkle_registry.trust import LoadRequest

    registry = default_registry()
    yield _hub_of(hub.scheme)
    locked = registry.lock.component(hub.repository_reference)
    lock_file = str(registry.lock.file)
    digest = hub.digest
    if locked is not None:
        digest = digest or locked.digest
        yield Step("lock", f"sha256:{locked.digest}", f"commit {locked.commit}, in {lock_file}")
        if hub.scheme == "file" and hub.digest is None and _gone(hub.repository_reference, locked.commit):
            way_out = (
                f"loading is refused until you look (twinkle hub diff {reference}) and lock it anew (twinkle hub add {reference})"
            )
            yield Step("folder", "changed after it was locked", way_out)
    else:
        yield Step("lock", "not pinned", f"{lock_file}; to pin it: twinkle hub add {reference}")
    if hub.digest is not None:
        agrees = locked is None or locked.digest == hub.digest
        yield Step("digest", f"sha256:{hub.digest}", "in the reference" + ("" if agrees else "; the lock has another"))
    repository, where = _stored(digest)
    yield Step("cache", where, "looked up by digest" if digest else "its digest isn't known before the hub was asked")
    parsed = RepoRef.parse(hub.repository_reference)
    name = str(parsed.at(None))
    request = LoadRequest("hub", reference, kind, repository=name, revision=hub.revision, digest=digest)
    if locked is not None:
        request = replace(request, commit=locked.commit)
    if repository is not None:
        request = yield from _content(kind, hub, repository, request)
        for source in ComponentStore(_home()).sources(repository.digest):
            yield Step("source", f"{source.repository}@{source.commit}", "where these files came from")
    yield from _checks()
    yield decision(request)


def _gone(reference: str, commit: str) -> bool:
    """Whether the folder ``reference`` is here and doesn't hold ``commit``."""
    from twinkle_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    from twinkle_hub.local import FileHub
    from twinkle_hub.repository import RepoRef

    try:
        FileHub().resolve(RepoRef.parse(reference).repo_id, commit)
    except RepositoryNotFoundError:
        return False
    except RevisionNotFoundError:
        return True
    return False


def _hub_of(scheme: str) -> Step:
    if scheme in ("hf", "ms", "file"):
        return Step("hub", f"{scheme}://", "built in")
    plugins = [row.label for row in default_registry().plugins() if "twinkle_register_hub" in row.hook_names]
    who = f"one of {', '.join(plugins)} may add it (not called here)" if plugins else "no installed plugin adds hubs"
    return Step("hub", f"{scheme}://", who)


def _stored(digest: str | None) -> tuple[StoredRepository | None, str]:
    """The files with ``digest`` in the store, verified, and where they are; damaged ones are left as they are."""
    from twinkle.cli.doctor_cache import damage
    from twinkle_registry.store import ComponentStore

    if digest is None:
        return None, "unknown"
    folder = _home() / "components" / "sha256" / digest
    if not folder.is_dir():
        return None, "not there"
    if problem := damage(folder):
        return None, f"damaged ({problem}); it would be fetched anew"
    return ComponentStore(_home()).read(digest), str(folder)


def _manifest_rows(repository: StoredRepository | None) -> list[tuple[str, str]]:
    from twinkle_registry.discovery import MANIFEST
    from twinkle_registry.manifest import parse_manifest

    content = repository.sources.get(MANIFEST) if repository else None
    return [] if content is None else [(row.kind, row.name) for row in parse_manifest(content, MANIFEST).component]


def _content(kind: str, hub: HubReference, repository: StoredRepository, request: LoadRequest) -> Any:
    """Steps on what the stored files say of themselves; returns ``request`` with that filled in."""
    from twinkle_registry.discovery import MANIFEST
    from twinkle_registry.hub_component import find_in_repository
    from twinkle_registry.manifest import parse_manifest
    from twinkle_registry.scan import capabilities, scan

    component = find_in_repository(kind, hub, repository)
    shown = f"{component.name}, entry {component.entry}" if component.entry else "the one subclass in __init__.py"
    yield Step("component", shown, MANIFEST if component.entry else "no manifest: the older layout")
    needs: tuple[str, ...] = ()
    pure = False
    if component.plugin is not None:
        needs = tuple(component.plugin.requires)
        rows = parse_manifest(repository.sources[MANIFEST], MANIFEST).component
        pure = any(row.pure for row in rows if (row.kind, row.name) == (kind, component.name))
        yield Step("requires", ", ".join(needs) or "nothing", "checked before it is imported; never installed for you")
    found = capabilities(scan(repository.sources))
    yield Step("scan", ", ".join(found) or "nothing noticed", "a lint, not a wall: twinkle hub info shows the lines")
    return replace(request, entry=component.entry, needs=needs, pure=pure, capabilities=found or (("pure",) if pure else ()))


def decision(request: LoadRequest) -> Step:
    """Which rule of ``authorize`` decides on code from a hub, in its order, as far as that is known without asking anybody."""
    from twinkle_registry.policies import Policies
    from twinkle_registry.trust import environment_allows

    lock = default_registry().lock
    locked = request.digest is not None and lock.by_digest(request.digest) is not None
    asked = Policies.current(_home()).explain(request, locked=locked, environment=environment_allows())
    decides = next((step for step in asked if step.allowed is not None), asked[-1])
    if decides.allowed is None:
        return Step("authorize", "would ask", f"no rule speaks: {decides.why}. To allow it: twinkle hub add {request.reference}")
    why = " ".join(part for part in (decides.rule, decides.why) if part)
    return Step("authorize", "allowed" if decides.allowed else "refused", f"{decides.asked}: {why}")


def environment(kind: str | None = None) -> Iterator[dict[str, str]]:
    """Every component that this environment offers, with the file that it would be loaded from: installed, then locked ones."""
    registry = default_registry()
    for row in registry.components(kind):
        yield {"kind": row.kind, "name": row.name, "from": row.label, "file": str(module_file(row)), "allowed": "installed"}
    for entry in registry.lock.components:
        repository, where = _stored(entry.digest)
        rows = _manifest_rows(repository) or [(found, "") for found in entry.kinds or ("component",)]
        for found, name in rows:
            if kind in (None, found):
                yield {
                    "kind": found,
                    "name": name,
                    "from": entry.reference,
                    "file": where if repository else f"sha256:{entry.digest}: {where}",
                    "allowed": "locked",
                }


def _show_environment(rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"components": rows}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in rows[0] if rows else ("kind", "name", "from"):
        table.add_column(column, overflow="fold")  # half a path is none
    for row in rows:
        table.add_row(*map(escape, row.values()))
    Console(highlight=False).print(table)


def _nearest(name: str, names: set[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, n=3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _home() -> Path:
    from twinkle_hub.settings import Settings

    return Settings.from_environment().home
