"""Packages from the store: ``twinkle._hub.sha256_<digest>``.

One finder serves them, from bytes that were hashed, so that two revisions live side by side, relative imports work, tracebacks show
source and ``sys.path`` stays as it is. What hasn't been admitted in this process (a class that is unpickled in a new one) has to be
authorized first. Knows nothing of hubs.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, spec_from_file_location
from types import ModuleType

from twinkle_registry.errors import PluginLoadError, TrustError
from twinkle_registry.store import ComponentStore, StoredRepository
from twinkle_registry.trust import Grant, LoadRequest

_PARENT = "twinkle._hub"
_NAME = re.compile(rf"{re.escape(_PARENT)}\.sha256_([0-9a-f]{{64}})((?:\.\w+)*)")


def package_name(digest: str) -> str:
    """The import name of the repository with that digest."""
    return f"{_PARENT}.sha256_{digest}"


class HubFinder(MetaPathFinder):
    """Finds the modules of repositories that were admitted.

    Args:
        store: where the files are.
        authorize: asked before a repository is served that wasn't admitted in this process.
    """

    def __init__(self, store: ComponentStore, authorize: Callable[[LoadRequest], Grant]) -> None:
        self._store = store
        self._authorize = authorize
        self._admitted: dict[str, StoredRepository] = {}

    def admit(self, grant: Grant, repository: StoredRepository) -> None:
        """Serve ``repository`` from now on.

        Raises:
            TrustError: ``grant`` isn't for these files.
        """
        if not isinstance(grant, Grant) or grant.request.source != "hub" or grant.request.digest != repository.digest:
            raise TrustError(f"Serving sha256:{repository.digest} takes a Grant for it, not {grant!r}.")
        self._admitted.setdefault(repository.digest, repository)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module ``fullname`` of an admitted repository; ``None`` for names that aren't below ``twinkle._hub``.

        Raises:
            ModuleNotFoundError: the repository has no such module. No other finder is asked: it would execute what lies in the
                folder, hashed or not.
            TrustError: the repository wasn't admitted in this process, and isn't allowed.
        """
        match = _NAME.fullmatch(fullname)
        if not match:
            return None
        repository = self._admitted.get(match.group(1)) or self._from_store(match.group(1))
        stem = match.group(2)[1:].replace(".", "/")
        for source in (f"{stem}/__init__.py" if stem else "__init__.py", f"{stem}.py"):
            if source in repository.sources:
                break
        else:
            if stem and not any(source.startswith(f"{stem}/") for source in repository.sources):
                raise ModuleNotFoundError(f"No module named {fullname!r}: the repository has no {stem}.py", name=fullname)
            return _without_source(fullname, [str(repository.folder / stem)])
        file = repository.folder / source
        locations = [str(file.parent)] if source.endswith("__init__.py") else None
        loader = _Loader(str(file), repository.sources[source], is_package=locations is not None)
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=locations)

    def _from_store(self, digest: str) -> StoredRepository:
        request = LoadRequest("hub", f"sha256:{digest}", "stored", repository=f"sha256:{digest}", digest=digest)
        grant = self._authorize(request)
        self.admit(grant, self._store.read(digest))
        return self._admitted[digest]


class _Loader(ExecutionLoader):
    """Executes the source that it was given; neither reads the file again nor a compiled one."""

    def __init__(self, path: str, source: bytes, *, is_package: bool) -> None:
        self.path = path  # where importlib.resources looks
        self._source = source
        self._is_package = is_package

    def get_source(self, fullname: str) -> str:
        return decode_source(self._source)

    def get_filename(self, fullname: str) -> str:
        return self.path

    def is_package(self, fullname: str) -> bool:
        return self._is_package


def _without_source(fullname: str, locations: list[str]) -> ModuleSpec:
    """A package without ``__init__.py``. Its modules are found by the finder, as everything below it."""
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = locations
    return spec


def install_finder(store: ComponentStore, authorize: Callable[[LoadRequest], Grant]) -> HubFinder:
    """The finder of this process; made from the arguments where there is none yet."""
    for finder in sys.meta_path:
        if isinstance(finder, HubFinder):
            return finder
    finder = HubFinder(store, authorize)
    sys.meta_path.insert(0, finder)
    # Makes sure of the parent; it comes with twinkle-core, whose base classes every component needs.
    try:
        importlib.import_module(_PARENT)
    except ModuleNotFoundError as error:
        raise PluginLoadError("Components from hubs need twinkle-core. Install it: pip install twinkle-core") from error
    return finder
