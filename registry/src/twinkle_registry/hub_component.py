"""Which component of a repository a reference means.

The manifest at the root says which components there are. Repositories of the older layout have none: there it is the one class in
``__init__.py`` that derives from the kind's base class, which only importing can tell. Imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twinkle_registry.discovery import MANIFEST
from twinkle_registry.errors import AmbiguousComponentError, ComponentNotFoundError
from twinkle_registry.reference import HubReference
from twinkle_registry.rows import PluginRow
from twinkle_registry.store import StoredRepository


@dataclass(frozen=True)
class HubComponent:
    """A component of a repository.

    Attributes:
        entry: ``module:Attribute``, or ``None`` in the older layout.
        config: what the manifest declares of its configuration.
        plugin: what the manifest says of the plugin, or ``None`` in the older layout.
        pure: the manifest says that it needs no network, files, GPU or global state.
        name: the component's name; in the older layout the one that the reference gives, or ``None``.
    """

    entry: str | None
    name: str | None
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plugin: PluginRow | None = None
    pure: bool = False


def find_in_repository(kind: str, reference: HubReference, repository: StoredRepository) -> HubComponent:
    """The component of ``kind`` that ``reference`` means.

    Raises:
        ManifestError: the manifest isn't valid; names file, line and key.
        ComponentNotFoundError: there is none; the message lists those that there are.
        AmbiguousComponentError: there are several, and the reference names none.
    """
    content = repository.sources.get(MANIFEST)
    if content is None:
        if "__init__.py" not in repository.sources:
            raise ComponentNotFoundError(
                f"{reference} holds no component: it has neither a twinkle.toml nor an __init__.py at its root. Check the name."
            )
        return HubComponent(None, reference.component)
    from twinkle_registry.manifest import parse_manifest

    manifest = parse_manifest(content, f"{reference}: twinkle.toml")
    rows = [row for row in manifest.component if row.kind == kind]
    found = [row for row in rows if reference.component in (None, row.name)]
    if not found:
        listed = ", ".join(f"{row.kind} {row.name}" for row in manifest.component) or "none"
        wanted = f"{kind} named {reference.component!r}" if reference.component else kind
        raise ComponentNotFoundError(f"{reference} has no {wanted}. Its components: {listed}.")
    if len(found) > 1:
        names = " or ".join(f"/{row.name}" for row in found)
        raise AmbiguousComponentError(f"{reference} has more than one {kind}. Say which, after the repository's name: {names}.")
    table, row = manifest.plugin, found[0]
    plugin = PluginRow(
        distribution=f"{reference.scheme}://{reference.repository}",
        version=table.version,
        name=table.name,
        summary=table.summary,
        license=table.license,
        package="",
        location=str(repository.folder),
        api=table.api,
        requires=table.requires,
        hook_module="",
        hook_names=(),
    )
    return HubComponent(row.entry, row.name, {key: value.as_data() for key, value in row.config.items()}, plugin, row.pure)
