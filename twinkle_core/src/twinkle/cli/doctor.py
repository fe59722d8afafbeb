"""What ``twinkle plugins doctor`` finds out.

Each check is contained: one that breaks is a finding, not the end. Knows nothing of how findings are shown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from twinkle import __version__
from twinkle.component import default_registry, load_component
from twinkle_registry.rows import ComponentRow

Status = Literal["ok", "warning", "error"]


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
    found: list[Finding] = []
    for check in (_python, _platform, _problems, _components, _plugin_checks):
        try:
            found.extend(check())
        except Exception as error:  # a doctor that dies of what it should find is no doctor
            found.append(Finding("error", check.__name__.strip("_"), f"the check itself failed: {type(error).__name__}: {error}"))
    return found


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "twinkle", f"{__version__} on Python {version}, {sys.prefix}")


def _platform() -> Iterator[Finding]:
    from twinkle.platform import Platform

    platform = Platform.current()
    yield Finding("ok", "platform", f"{platform.device_type}, {platform.device_count()} device(s)")


def _problems() -> Iterator[Finding]:
    for problem in default_registry().problems():
        yield Finding("error", problem.distribution, problem.message)


def _components() -> Iterator[Finding]:
    registry = default_registry()
    components: dict[str, list[ComponentRow]] = {}
    for row in registry.components():
        components.setdefault(row.location, []).append(row)
    for plugin in registry.plugins():
        broken = 0
        rows = components.get(plugin.location, [])
        for row in rows:
            try:
                load_component(row.kind, f"{row.distribution}/{row.name}")
            except Exception as error:
                broken += 1
                yield Finding("error", f"{plugin.distribution} {plugin.version}", f"{row.kind} {row.name}: {error}")
        if not broken:
            names = ", ".join(row.name for row in rows) or "no components"
            yield Finding("ok", f"{plugin.distribution} {plugin.version}", names)


def _plugin_checks() -> Iterator[Finding]:
    results: list[Any] = default_registry().hooks.call("twinkle_doctor")
    for rows in results:
        for status, subject, message in rows:
            yield Finding(status, subject, message)
