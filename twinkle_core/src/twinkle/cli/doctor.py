"""What ``twinkle plugins doctor`` finds out.

Each check is contained: one that breaks is a finding, not the end; every finding that isn't ``ok`` ends with the command that mends
it. Installed components are imported, code from hubs never is. Knows nothing of how findings are shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from twinkle import __version__
from twinkle.component import default_registry, load_component
from twinkle_registry.rows import ComponentRow, PluginRow

Status = Literal["ok", "warning", "error"]

WORKSPACE = frozenset(
    {"twinkle-hub", "twinkle-registry", "twinkle-core"}
    | {
        f"twinkle-plugin-{name}"
        for name in (
            *("data", "templates", "losses", "metrics", "rl", "transformers", "megatron", "vllm", "ray", "sync"),
            *("kernels", "server", "client", "agentic", "tiny"),
        )
    }
)
"""The distributions that are released together, with one version."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, how it is, and what to do."""

    status: Status
    subject: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything."""
    from twinkle.cli import doctor_cache

    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _platform,
        _versions,
        _problems,
        _installed_twice,
        _announced_twice,
        _same_plugin_name,
        _shadowed,
        _components,
        doctor_cache.home,
        doctor_cache.store,
        doctor_cache.lock,
        _decisions,
        _plugin_checks,
    )
    found: list[Finding] = []
    for check in checks:
        try:
            found.extend(check())
        except Exception as error:  # a doctor that dies of what it should find is no doctor
            found.append(Finding("error", check.__name__.strip("_"), f"the check itself failed: {type(error).__name__}: {error}"))
    return found


def _decisions() -> Iterator[Finding]:
    """What says whether code from hubs may be loaded: where it can't be read, none is."""
    from twinkle_hub.settings import Settings
    from twinkle_registry.errors import PolicyError
    from twinkle_registry.policies import Policies, policy_file

    file = policy_file()
    try:
        policies = Policies.current(Settings.from_environment().home)
        policies.user.rules()
    except PolicyError as error:
        check = f"twinkle policy check {file}" if file else "twinkle hub trust REF"
        yield Finding("error", "policy", f"{error} Until it is mended, nothing from hubs is loaded. Then run: {check}")
        return
    if missing := policies.revoked(None):
        yield Finding("error", "policy", f"nothing from hubs is loaded: {missing}")
    else:
        yield Finding("ok", "policy", f"{file or 'no operator has one'}; where no rule speaks: {policies.default}")


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "twinkle", f"{__version__} on Python {version}, {sys.prefix}")


def _platform() -> Iterator[Finding]:
    from twinkle.platform import Platform

    platform = Platform.current()
    yield Finding("ok", "platform", f"{platform.device_type}, {platform.device_count()} device(s)")


def _versions() -> Iterator[Finding]:
    """Distributions of the workspace of which some are older than the others."""
    from packaging.version import Version

    used = {distribution.name: distribution.version for distribution in reversed(_distributions())}
    versions = {name: version for name, version in used.items() if name in WORKSPACE}
    newest = max(versions.values(), key=Version, default="")
    behind = {name: version for name, version in sorted(versions.items()) if version != newest}
    if behind:
        listed = ", ".join(f"{name} {version}" for name, version in behind.items())
        yield Finding(
            "warning",
            "versions",
            f"outdated: {listed}; the newest part of Twinkle here is {newest}, and they are released together. "
            f"Upgrade: pip install --upgrade {' '.join(behind)}",
        )


def _problems() -> Iterator[Finding]:
    from twinkle_registry.errors import ManifestError
    from twinkle_registry.manifest import load_manifest

    for problem in default_registry().problems():
        message = problem.message
        try:
            if Path(problem.location).is_file():
                load_manifest(Path(problem.location))
        except ManifestError as error:  # the listing shows the first error of a manifest, and here are all of them
            message = "; ".join(str(error).splitlines())
        reinstall = "" if "pip " in message else f" Reinstall or upgrade it: pip install --upgrade {problem.distribution}"
        yield Finding("error", f"{problem.distribution} {problem.version}".strip(), f"broken: {message}{reinstall}")


@dataclass(frozen=True)
class _Distribution:
    name: str
    version: str
    folder: str


def _distributions() -> list[_Distribution]:
    """The distributions on the import path that announce plugins, and Twinkle's own; all copies, the first one first."""
    import os
    from importlib.metadata import distributions

    from twinkle_registry.discovery import GROUP, canonical_name

    found: dict[tuple[str, str], _Distribution] = {}
    for distribution in distributions():
        name = canonical_name(distribution.metadata["Name"] or "")
        if name in WORKSPACE or any(point.group == GROUP for point in distribution.entry_points):
            folder = os.path.realpath(str(distribution.locate_file("")))
            found.setdefault((name, folder), _Distribution(name, distribution.version, folder))
    return list(found.values())


def _installed_twice() -> Iterator[Finding]:
    """A distribution that lies in two folders of the import path: the second is never used."""
    for name, group in groupby(sorted(_distributions(), key=lambda row: row.name), key=lambda row: row.name):
        used, *shadowed = group
        for row in shadowed:
            yield Finding(
                "warning",
                name,
                f"shadowed: version {row.version} in {row.folder} is never used, because {used.version} in {used.folder} comes "
                f"first on the import path. Keep one: repeat pip uninstall {name} until nothing is left, then pip install {name}",
            )


def _announced_twice() -> Iterator[Finding]:
    """Entry points that lead to the same package, of one distribution or of two."""
    by_package: dict[str, list[PluginRow]] = {}
    for plugin in default_registry().plugins():
        by_package.setdefault(plugin.location, []).append(plugin)
    for rows in by_package.values():
        owners = sorted({row.distribution for row in rows})
        if len(rows) < 2:
            continue
        if len(owners) == 1:
            message = (
                f"duplicate: it announces the package {rows[0].package!r} {len(rows)} times, so none of its names is unambiguous. "
                f"Its author has to remove all but one of its twinkle.plugins entry points; until then: pip uninstall {owners[0]}"
            )
        else:
            message = (
                f"duplicate: {' and '.join(owners)} announce the same package {rows[0].package!r}. "
                f"Keep one of them: pip uninstall {owners[-1]}"
            )
        yield Finding("error", ", ".join(owners), message)


def _same_plugin_name() -> Iterator[Finding]:
    """Two packages whose manifests give the plugin the same name."""
    rows = sorted({(row.name, row.distribution, row.package) for row in default_registry().plugins()})
    for name, group in groupby(rows, key=lambda row: row[0]):
        owners = [f"{distribution} ({package})" for _, distribution, package in group]
        if len(owners) > 1:
            last = owners[-1].partition(" ")[0]
            yield Finding(
                "warning",
                name,
                f"duplicate: {' and '.join(owners)} are both plugins named {name!r}; one may be an old name of the other. "
                f"Keep one of them: pip uninstall {last}",
            )


def _shadowed() -> Iterator[Finding]:
    """Component names that more than one plugin has: the bare name is an error, which a script notices late."""
    by_name: dict[tuple[str, str], list[ComponentRow]] = {}
    for row in default_registry().components():
        by_name.setdefault((row.kind, row.name), []).append(row)
    for (kind, name), rows in sorted(by_name.items()):
        if len({row.location for row in rows}) > 1:
            plugins = " and ".join(row.label for row in rows)
            choices = " or ".join(repr(f"{row.distribution}/{row.name}") for row in rows)
            yield Finding(
                "warning",
                f"{kind} {name}",
                f"shadowed: {plugins} both have it, so the bare name is ambiguous. Write {choices}, or keep one plugin: "
                f"pip uninstall {rows[-1].distribution}",
            )


def _components() -> Iterator[Finding]:
    from twinkle_registry.errors import PluginLoadError
    from twinkle_registry.requirements import check_requirements

    registry = default_registry()
    components: dict[str, list[ComponentRow]] = {}
    for row in registry.components():
        components.setdefault(row.location, []).append(row)
    plugins = registry.plugins()
    announced = [plugin.location for plugin in plugins]
    for plugin in plugins:
        if announced.count(plugin.location) > 1:  # a finding of its own, and each of its components would only repeat it
            continue
        rows = components.get(plugin.location, [])
        try:
            check_requirements(plugin)
        except PluginLoadError as error:  # said once, not for each of its components
            yield Finding("error", plugin.label, f"{_incompatibility(plugin)}: {error}")
            continue
        broken = 0
        for row in rows:
            try:
                load_component(row.kind, f"{row.distribution}/{row.name}")
            except Exception as error:
                broken += 1
                cause = str(error).removesuffix(" See: twinkle plugins doctor")
                mend = f"Upgrade or reinstall it: pip install --upgrade {plugin.distribution}"
                yield Finding("error", plugin.label, f"broken: {row.kind} {row.name}: {cause} {mend}")
        if not broken:
            yield Finding("ok", plugin.label, ", ".join(row.name for row in rows) or "no components")


def _incompatibility(plugin: PluginRow) -> str:
    from packaging.specifiers import SpecifierSet

    from twinkle_registry.requirements import API_VERSION

    return "incompatible" if SpecifierSet(plugin.api).contains(API_VERSION, prereleases=True) else "outdated"


def _plugin_checks() -> Iterator[Finding]:
    results: list[Any] = default_registry().hooks.call("twinkle_doctor")
    for rows in results:
        for status, subject, message in rows:
            yield Finding(status, subject, message)
