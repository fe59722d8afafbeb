"""From a reference to one installed component, or to the error that helps most.

Looks a name up among the components of an index. Knows nothing of hubs, trust or loading.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from twinkle_registry.discovery import canonical_name
from twinkle_registry.errors import AmbiguousComponentError, ComponentNotFoundError
from twinkle_registry.reference import InstalledReference
from twinkle_registry.rows import ComponentRow


def resolve_installed(kind: str, reference: InstalledReference, components: Sequence[ComponentRow]) -> ComponentRow:
    """The component of ``kind`` that ``reference`` stands for.

    Raises:
        ComponentNotFoundError: there is none; the message holds the nearest names.
        AmbiguousComponentError: more than one plugin has it; the message lists the references that are unambiguous.
    """
    of_kind = [row for row in components if row.kind == kind]
    found = [row for row in of_kind if row.name == reference.name and _fits(row, reference.distribution)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join(f"'{row.distribution}/{row.name}' ({row.label})" for row in found)
        if len({row.distribution for row in found}) < len(found):
            raise AmbiguousComponentError(
                f"{found[0].label} has more than one {kind} named {reference.name!r}: in the packages "
                f"{', '.join(row.package for row in found)}. Its author has to rename one."
            )
        raise AmbiguousComponentError(f"More than one plugin has a {kind} named {reference.name!r}. Say which: {choices}.")
    raise ComponentNotFoundError(_not_found(kind, reference, of_kind, components))


def _fits(row: ComponentRow, distribution: str | None) -> bool:
    return distribution is None or canonical_name(row.distribution) == canonical_name(distribution)


def _not_found(
    kind: str, reference: InstalledReference, of_kind: Sequence[ComponentRow], everything: Sequence[ComponentRow]
) -> str:
    start = f"No {kind} named '{reference}'."
    see_all = f"See all: twinkle plugins list --kind {kind}"
    if reference.distribution is not None:
        if not any(_fits(row, reference.distribution) for row in everything):
            start = f"{start} No plugin named {reference.distribution!r} is installed."
            return f"{start} {_near_distribution(reference.distribution, everything)}See all: twinkle plugins list"
        of_plugin = [row for row in of_kind if _fits(row, reference.distribution)]
        names = ", ".join(row.name for row in of_plugin) or "none"
        return f"{start} {reference.distribution} has of this kind: {names}. {see_all}"
    if near := nearest(reference.name, of_kind):
        return f"{start} Did you mean {' or '.join(f'{row.name!r} ({row.label})' for row in near)}? {see_all}"
    if elsewhere := [row for row in everything if row.name == reference.name]:
        return f"{start} There is a {elsewhere[0].kind} of that name ({elsewhere[0].label}). {see_all}"
    if not of_kind:
        return f"{start} No installed plugin has any {kind}. See what is installed: twinkle plugins list"
    return f"{start} {see_all}"


def _near_distribution(name: str, components: Sequence[ComponentRow]) -> str:
    near = difflib.get_close_matches(canonical_name(name), {canonical_name(row.distribution) for row in components}, 1)
    return f"Did you mean {near[0]!r}? " if near else ""


def nearest(name: str, rows: Sequence[ComponentRow]) -> list[ComponentRow]:
    """Up to three of ``rows`` whose names are close to ``name``: the same but for case, alike, or a longer form of it."""
    by_name = {row.name.lower(): row for row in rows}
    wanted = name.lower()
    close = difflib.get_close_matches(wanted, by_name, 3, cutoff=0.75)
    longer = sorted((other for other in by_name if len(wanted) > 2 and wanted in other), key=len)
    return [by_name[other] for other in dict.fromkeys([*close, *longer])][:3]
