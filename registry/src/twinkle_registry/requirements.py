"""Whether what a plugin needs is there: its component API version and its packages.

Asked before a plugin is loaded; nothing is ever installed for it. Knows nothing of manifests or of loading.
"""

from __future__ import annotations

import shlex
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from twinkle_registry.errors import PluginLoadError
from twinkle_registry.rows import PluginRow

API_VERSION = "1.0"
"""The version of the component API that this Twinkle offers. The number before the dot changes when a contract breaks."""


def check_requirements(plugin: PluginRow) -> None:
    """Return if ``plugin`` can run here.

    Raises:
        PluginLoadError: it was written for another component API, or needs packages that aren't there; names each, what is
            installed, and the command that installs them.
    """
    if not SpecifierSet(plugin.api).contains(API_VERSION, prereleases=True):
        raise PluginLoadError(
            f"{plugin.label} is written for version {plugin.api} of the component API, and this Twinkle offers {API_VERSION}. "
            f"Upgrade the older of the two: pip install --upgrade {plugin.distribution} twinkle-core"
        )
    missing = {text: installed for text in plugin.requires if (installed := _unmet(text)) is not None}
    if missing:
        details = "; ".join(f"{text} ({installed})" for text, installed in missing.items())
        command = " ".join(map(_quoted, missing))
        raise PluginLoadError(f"{plugin.label} needs {details}. Install what it needs: pip install {command}")


def _quoted(text: str) -> str:
    """``text`` for a command line; a stranger wrote it, and somebody will paste it."""
    return shlex.quote(text) if any(character in text for character in "\"'$`\\") else f'"{text}"'  # these, Windows takes, too


def _unmet(text: str) -> str | None:
    """What is there in place of the requirement ``text``, or ``None`` where it is met or doesn't apply here."""
    requirement = Requirement(text)
    if requirement.marker and not requirement.marker.evaluate():
        return None
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return "not installed"
    return None if requirement.specifier.contains(installed, prereleases=True) else f"{installed} is installed"
