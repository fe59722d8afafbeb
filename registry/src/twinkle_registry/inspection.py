"""What can be known of a repository without executing anything of it.

An ``Inspection`` is what a person is shown before code is allowed: whose it is, which files there are, what it says that it needs,
and what a static scan found. Knows nothing of hubs, trust or importing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twinkle_registry.discovery import MANIFEST
from twinkle_registry.errors import ManifestError

if TYPE_CHECKING:
    from twinkle_registry.manifest import Manifest
    from twinkle_registry.scan import ScanFinding
    from twinkle_registry.store import StoredRepository
    from twinkle_registry.trust import LoadRequest


@dataclass(frozen=True)
class ComponentSummary:
    """What a repository's manifest says of one of its components."""

    kind: str
    name: str
    entry: str
    pure: bool


@dataclass(frozen=True)
class Inspection:
    """A repository's files as they lie in the store.

    Attributes:
        reference: how it was asked for.
        kind: the kind of component that somebody wants to load from it; ``None`` where nobody wants to yet.
        repository: the repository, with its scheme.
        owner: whose it is, such as ``hf://acme``; for ``file`` the folder.
        revision: the revision that was asked for, or ``None`` for the hub's default.
        commit: the commit that the revision stood for.
        digest: the SHA-256 (64 hex digits) of the files.
        files: path and size in bytes of each file, by path.
        needs: the packages that the manifest says it needs.
        findings: what the static scan found; shown, not trusted.
        capabilities: what the findings amount to; see ``LoadRequest``.
        plugin: the manifest's ``[plugin]`` table (name, version, api, license, summary); empty in the older layout.
        components: the components that the manifest lists; empty in the older layout.
        pure: every component claims to be pure.
        problem: why the manifest can't be read, or ``None``.
    """

    reference: str
    repository: str
    digest: str
    owner: str | None = None
    kind: str | None = None
    revision: str | None = None
    commit: str | None = None
    files: Sequence[tuple[str, int]] = ()
    needs: tuple[str, ...] = ()
    findings: Sequence[ScanFinding] = ()
    capabilities: tuple[str, ...] = ()
    plugin: Mapping[str, str] = field(default_factory=dict)
    components: Sequence[ComponentSummary] = ()
    pure: bool = False
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        from dataclasses import asdict

        return {
            **asdict(self),
            "files": [{"path": path, "size": size} for path, size in self.files],
            "findings": [finding._asdict() for finding in self.findings],
        }


def inspect_files(request: LoadRequest, repository: StoredRepository) -> Inspection:
    """What is in ``repository``, which was fetched for ``request``. An invalid manifest is a ``problem``, not an error."""
    from twinkle_registry.scan import capabilities, scan

    manifest, problem = None, None
    try:
        manifest = _manifest(repository)
    except ManifestError as error:
        problem = str(error)
    findings = scan(repository.sources)
    rows = manifest.component if manifest else ()
    plugin = manifest.plugin if manifest else None
    return Inspection(
        reference=request.reference,
        repository=request.repository or f"sha256:{repository.digest}",
        digest=repository.digest,
        owner=request.owner,
        kind=request.kind or None,
        revision=request.revision,
        commit=request.commit,
        files=sorted(repository.sizes.items()),
        needs=tuple(plugin.requires) if plugin else (),
        findings=findings,
        capabilities=capabilities(findings),
        plugin={name: getattr(plugin, name) for name in ("name", "version", "api", "license", "summary")} if plugin else {},
        components=[ComponentSummary(row.kind, row.name, row.entry, row.pure) for row in rows],
        pure=bool(rows) and all(row.pure for row in rows),
        problem=problem,
    )


def claims(repository: StoredRepository) -> dict[str, bool]:
    """The kinds of the components in ``repository``, and whether all of a kind claim to be pure; empty without a manifest.

    Raises:
        ManifestError: the manifest isn't valid.
    """
    manifest = _manifest(repository)
    kinds: dict[str, bool] = {}
    for row in manifest.component if manifest else ():
        kinds[row.kind] = kinds.get(row.kind, True) and row.pure
    return kinds


def _manifest(repository: StoredRepository) -> Manifest | None:
    from twinkle_registry.manifest import parse_manifest

    content = repository.sources.get(MANIFEST)
    return None if content is None else parse_manifest(content, f"{MANIFEST} of sha256:{repository.digest}")
