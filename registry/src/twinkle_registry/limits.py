"""What the files of a component from a hub may be called, and how many and how large they may be.

``Limits.from_environment()`` is the one place that reads the numbers; ``check_files`` holds a listing to them, before anything is
fetched or copied. Knows nothing of hubs or of what is in the files; reads no disk.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath

from twinkle_registry.errors import ConfigError, PluginLoadError

VARIABLES = {
    "files": "TWINKLE_MAX_COMPONENT_FILES",
    "file_bytes": "TWINKLE_MAX_COMPONENT_FILE_BYTES",
    "total_bytes": "TWINKLE_MAX_COMPONENT_BYTES",
    "path_length": "TWINKLE_MAX_COMPONENT_PATH",
    "depth": "TWINKLE_MAX_COMPONENT_DEPTH",
}
"""The environment variable of each limit."""

# What Windows doesn't take as a file's name, whatever its extension, and characters that it doesn't take in one
# (learn.microsoft.com, "Naming Files, Paths, and Namespaces"). A digest has to mean the same everywhere.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_ODD = re.compile(r'[<>:"|?*\\]')
# Control characters, invisible and direction-changing ones, lone surrogates (names that aren't UTF-8), unassigned, private.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})


@dataclass(frozen=True)
class Limits:
    """How much a component may hold. All numbers are positive.

    Attributes:
        files: how many files.
        file_bytes: the size of one file, in bytes.
        total_bytes: the size of all files together, in bytes.
        path_length: the length of a file's path in the repository, in bytes of UTF-8.
        depth: how many names that path may have.
    """

    files: int = 1000
    file_bytes: int = 64 * 2**20
    total_bytes: int = 256 * 2**20
    path_length: int = 200  # with the store's own folder before it, Windows' 260 are kept
    depth: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ConfigError(f"The limit {field.name} ({VARIABLES[field.name]}) is a positive whole number, not {value!r}.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Limits:
        """The limits of ``environment`` (default: this process's); those that it doesn't name are the defaults.

        Raises:
            ConfigError: a value is no positive whole number; names the variable.
        """
        env = os.environ if environment is None else environment
        given = {}
        for name, variable in VARIABLES.items():
            if text := env.get(variable, "").strip():
                if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) == 0:
                    raise ConfigError(f"{variable}={text!r} isn't a positive whole number. Correct it, or unset it.")
                given[name] = int(text)
        return cls(**given)


def check_files(sizes: Mapping[str, int], repository: str, limits: Limits) -> None:
    """Check the names and sizes (bytes) of the files of ``repository``: relative path with ``/`` to size.

    Raises:
        PluginLoadError: there are too many or too large ones, a path leads elsewhere, is too long or too deep, isn't possible on
            every system, or two of them are the same where upper and lower case or ways to write a letter aren't told apart; names
            the file and what to do.
    """
    _check_amount(sizes, repository, limits)
    for path in sizes:
        if reason := refused_name(path, limits):
            raise PluginLoadError(f"{repository}: the file {path!r} is refused: {reason}. Its author has to rename it.")
    _check_collisions(sizes, repository)


def refused_name(path: str, limits: Limits) -> str | None:
    """Why a component's file may not be called ``path`` (relative, with ``/``); ``None`` where it may."""
    if any(unicodedata.category(character) in _UNPRINTABLE for character in path):
        return "its name has characters that can't be seen, or isn't UTF-8"
    if odd := _ODD.search(path):
        return f"its name has the character {odd.group()!r}"
    if len(path.encode()) > limits.path_length:
        return f"its path is longer than {limits.path_length} bytes ({VARIABLES['path_length']})"
    parts = path.split("/")
    if len(parts) > limits.depth:
        return f"it lies deeper than {limits.depth} folders ({VARIABLES['depth']})"
    for part in parts:
        if part in ("", ".", ".."):
            return "its path is absolute or leads elsewhere"
        if part != part.strip() or part.endswith("."):
            return f"the name {part!r} begins or ends with a space, or ends with a dot"
        if _RESERVED.fullmatch(part):
            return f"{part!r} is a name that Windows reserves"
    return None


def _check_amount(sizes: Mapping[str, int], repository: str, limits: Limits) -> None:
    def refuse(what: str, name: str) -> PluginLoadError:
        return PluginLoadError(
            f"{repository} holds {what}; a component's limit is {getattr(limits, name):,}. "
            f"Is it the right repository? To allow more, set {VARIABLES[name]}."
        )

    if len(sizes) > limits.files:
        raise refuse(f"more than {limits.files:,} files", "files")
    for path, size in sizes.items():
        if size > limits.file_bytes:
            raise refuse(f"the file {path!r} of {size:,} bytes", "file_bytes")
    if (total := sum(sizes.values())) > limits.total_bytes:
        raise refuse(f"{total:,} bytes", "total_bytes")


def _check_collisions(sizes: Mapping[str, int], repository: str) -> None:
    seen: dict[str, str] = {}
    for path in sizes:
        # Folders collide, too: A/x.py and a/y.py are one folder on some systems and two on others.
        for name in (path, *map(str, PurePosixPath(path).parents)):
            # Python itself compares identifiers in NFKC (reference, 2.3), macOS's file system names in NFD.
            other = seen.setdefault(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()), name)
            if other != name:
                raise PluginLoadError(
                    f"{repository}: {other!r} and {name!r} are the same name on some systems (upper and lower case, or another "
                    "way to write the same letters). Its author has to rename one."
                )
    for path in sizes:
        for parent in map(str, PurePosixPath(path).parents):
            if parent in sizes:
                raise PluginLoadError(f"{repository}: {parent!r} is a file and a folder at once. Its author has to rename one.")
