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
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

from twinkle_registry.errors import PluginLoadError, TrustError
from twinkle_registry.store import StoredRepository
from twinkle_registry.trust import Grant

Stored = Callable[[str], tuple[Grant, StoredRepository]]

_PARENT = "twinkle._hub"
_NAME = re.compile(rf"{re.escape(_PARENT)}\.sha256_([0-9a-f]{{64}})((?:\.[^./]+)*)")


def package_name(digest: str) -> str:
    """The import name of the repository with that digest."""
    return f"{_PARENT}.sha256_{digest}"


class HubFinder(MetaPathFinder):
    """Finds the modules of repositories that were admitted.

    Args:
        stored: gives the files with a digest, and the permission to load them; asked before a repository is served that wasn't
            admitted in this process.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
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
            ModuleNotFoundError: the repository has no such module. No other finder is asked, however odd the name: it would
                execute what lies in the folder, hashed or not.
            TrustError: the repository wasn't admitted in this process, and isn't allowed.
        """
        if not fullname.startswith(f"{_PARENT}."):
            return None
        match = _NAME.fullmatch(fullname)
        if not match:
            raise ModuleNotFoundError(f"No module named {fullname!r}: it names no repository", name=fullname)
        repository = self._admitted.get(match.group(1)) or self._from_store(match.group(1))
        stem = match.group(2)[1:].replace(".", "/")
        package, module = f"{stem}/__init__.py" if stem else "__init__.py", f"{stem}.py"
        is_package = package in repository.sources or module not in repository.sources
        source = package if is_package else module
        if source not in repository.sources and stem and not any(path.startswith(f"{stem}/") for path in repository.sources):
            raise ModuleNotFoundError(f"No module named {fullname!r}: the repository has no {module}", name=fullname)
        file = repository.folder / source
        # A folder without __init__.py is a package whose source is empty.
        loader = _Loader(fullname, str(file), repository.sources.get(source, b""))
        locations = [str(file.parent)] if is_package else None
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=locations)

    def _from_store(self, digest: str) -> StoredRepository:
        grant, repository = self._stored(digest)
        self.admit(grant, repository)
        return self._admitted[digest]


class _Loader(SourceFileLoader):
    """Executes the source that it was given; neither reads the file again nor a compiled one."""

    def __init__(self, fullname: str, path: str, source: bytes) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_data(self, path: str) -> bytes:
        """The verified source. Other files (compiled ones) aren't there for this loader."""
        if path != self.path:
            raise FileNotFoundError(path)
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        """The compiled source. No compiled file is looked for, and none is written."""
        return self.source_to_code(self._source, self.path)


def install_finder(stored: Stored) -> HubFinder:
    """The finder of this process; made with ``stored`` where there is none yet."""
    for finder in sys.meta_path:
        if isinstance(finder, HubFinder):
            return finder
    finder = HubFinder(stored)
    sys.meta_path.insert(0, finder)
    # Makes sure of the parent; it comes with twinkle-core, whose base classes every component needs.
    try:
        importlib.import_module(_PARENT)
    except ModuleNotFoundError as error:
        raise PluginLoadError("Components from hubs need twinkle-core. Install it: pip install twinkle-core") from error
    return finder
