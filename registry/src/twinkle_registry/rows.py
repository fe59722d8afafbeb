"""What a listing of plugins and components consists of: three light tuples.

A thousand of them are made in less than a millisecond. Knows nothing of where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class PluginRow(NamedTuple):
    """An installed plugin.

    Attributes:
        distribution: the installed distribution's name, as ``pip`` shows it.
        version: the installed distribution's version.
        name: the plugin's own name, from its manifest.
        package: the import name of the package that holds the manifest.
        location: that package's folder.
        api: the component API versions that the plugin was written for, such as ``>=1,<2``.
        requires: the packages that it needs, such as ``torch>=2.6``.
        hook_module: the module, relative to the package, that holds its hooks; empty where there are none.
        hook_names: the hooks that this module implements.
    """

    distribution: str
    version: str
    name: str
    summary: str
    license: str
    package: str
    location: str
    api: str
    requires: Sequence[str]
    hook_module: str
    hook_names: Sequence[str]

    @property
    def label(self) -> str:
        """Distribution and version, the way that messages show a plugin: ``twinkle-plugin-losses 0.1.0``."""
        return f"{self.distribution} {self.version}"

    def as_dict(self) -> dict[str, Any]:
        """The columns by their names, as plain data."""
        return self._asdict()


class ComponentRow(NamedTuple):
    """A component of an installed plugin.

    Attributes:
        kind: the kind of component, such as ``loss``.
        name: its name, unique among the plugin's components of this kind.
        entry: ``module:Attribute``, the module relative to ``package``.
        pure: it needs no network, files, GPU or global state.
        config: for each declared configuration key its ``type``, and what else the manifest says of it.
        distribution: the installed distribution's name.
        version: the installed distribution's version.
        plugin: the plugin's own name.
        summary: the plugin's summary.
        license: the plugin's license.
        package: the import name of the plugin's package.
        location: that package's folder.
    """

    kind: str
    name: str
    entry: str
    pure: bool
    config: Mapping[str, Mapping[str, Any]]
    distribution: str
    version: str
    plugin: str
    summary: str
    license: str
    package: str
    location: str

    @property
    def label(self) -> str:
        """Distribution and version: ``twinkle-plugin-losses 0.1.0``."""
        return f"{self.distribution} {self.version}"

    def as_dict(self) -> dict[str, Any]:
        """The columns by their names, as plain data."""
        return self._asdict()


class Problem(NamedTuple):
    """Something that keeps a plugin from being listed or its hooks from being called.

    Attributes:
        distribution: the distribution's name.
        version: its version.
        location: the file or folder that is concerned.
        message: what is wrong and what to do, in one line.
    """

    distribution: str
    version: str
    location: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        """The columns by their names, as plain data."""
        return self._asdict()
