"""What a run was made of, in words that don't change: configuration as plain data, where code came from, and what files hold.

The same input gives the same result in every process: no addresses, no times, nothing of the environment. Values that are secrets
by their name or their look are blotted out. Executes nothing and leans on no framework.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from twinkle.logger import redact

WHOLE_BYTES = 4 << 20
"""Files up to this size are hashed whole: configurations, tokenizers, indices. Some 2 ms for the largest."""
EDGE_BYTES = 1 << 20
"""Of larger files this much is hashed at either end, which holds the header of a safetensors file, together with the size."""
MAX_FILES = 10_000
"""How many files of a folder are looked at, in order of their names."""

_HUB_PACKAGE = "twinkle._hub.sha256_"
_SECRET_NAMES = ("token", "secret", "password", "passwd", "api_key", "apikey", "credential", "webhook", "authorization")
# Names of numbers and options of training that merely sound like it.
_NO_SECRETS = ("tokens", "tokenizer", "token_id", "token_ids", "token_type", "by_token", "token_mean")
_DEPTH = 8


class Patterns(NamedTuple):
    """Which files of a repository were asked for (``fnmatch``); None: all."""

    allow: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None


def plain_data(value: Any, depth: int = _DEPTH) -> Any:
    """``value`` as what JSON can hold; what isn't data is named by its class or function, never by its ``repr``."""
    if isinstance(value, enum.Enum):
        return plain_data(value.value, depth)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Path):
        return portable_path(value)
    if isinstance(value, range):
        return f"range({value.start}, {value.stop}, {value.step})"
    if depth and isinstance(value, Mapping):
        rows = {str(key): plain_data(item, depth - 1) for key, item in value.items()}
        return {key: "***" if _is_secret(key) and rows[key] else rows[key] for key in sorted(rows)}
    if depth and isinstance(value, set | frozenset):
        return sorted((plain_data(item, depth - 1) for item in value), key=repr)
    if depth and isinstance(value, list | tuple):
        return [plain_data(item, depth - 1) for item in value]
    if depth and is_dataclass(value) and not isinstance(value, type):
        return plain_data({field.name: getattr(value, field.name) for field in fields(value)}, depth)
    return _named(value)


def _named(value: Any) -> Any:
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value)
    if isinstance(value, functools.partial):
        return {"partial": _named(value.func), "config": plain_data(value.keywords)}
    if inspect.isclass(value) or inspect.isroutine(value):
        return {"code": qualified_name(value), "source": source_digest(value)}
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return {"array": [int(size) for size in value.shape], "dtype": str(value.dtype)}
    return {"object": qualified_name(type(value))}


def _is_secret(name: str) -> bool:
    low = name.lower()
    return any(part in low for part in _SECRET_NAMES) and not any(part in low for part in _NO_SECRETS)


def qualified_name(found: Any) -> str:
    """``module:Name`` of a class or function."""
    found = found.func if isinstance(found, functools.partial) else found
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{getattr(named, '__module__', '?')}:{named.__qualname__}"


def source_digest(found: Any) -> str | None:
    """The SHA-256 of the source text of a class or function; None where it can't be had, as for what was typed at a prompt."""
    try:
        return hashlib.sha256(inspect.getsource(found).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def code_source(found: Any) -> dict[str, Any]:
    """Where a class or function comes from, as plain data.

    A component of a hub: ``digest``. One of an installed plugin: ``distribution``, ``version`` and ``code``, the digest of the
    plugin's package. One of another package: its ``distribution`` and ``version``. Else ``source``, the digest of its own text.
    Always ``entry``, as ``module:Name``.
    """
    found = found.func if isinstance(found, functools.partial) else found
    found = found if hasattr(found, "__qualname__") else type(found)
    entry = qualified_name(found)
    module = str(getattr(found, "__module__", ""))
    if module.startswith(_HUB_PACKAGE):
        digest, _, rest = module.removeprefix(_HUB_PACKAGE).partition(".")
        return {"digest": f"sha256:{digest}", "entry": f"{rest}:{found.__qualname__}"}
    package = module.partition(".")[0]
    for plugin in _installed_plugins():
        if module == plugin.package or module.startswith(f"{plugin.package}."):
            code = package_digest(Path(plugin.location))
            return {"distribution": plugin.distribution, "version": plugin.version, "code": code, "entry": entry}
    version = installed_version(package)
    if version is not None and _belongs(found, package):
        return {"distribution": package, "version": version, "entry": entry}
    return {"entry": entry, "source": source_digest(found)}


def _belongs(found: Any, package: str) -> bool:
    """Whether ``found`` lies in the folder that the distribution called ``package`` installed: a script may have that name, too."""
    file = getattr(sys.modules.get(found.__module__), "__file__", None)
    root = Path(str(importlib.metadata.distribution(package).locate_file(package)))
    return file is not None and Path(file).is_relative_to(root)


class Plugin(NamedTuple):
    """What is looked at of an installed plugin."""

    distribution: str
    version: str
    package: str
    location: str


def _installed_plugins() -> list[Plugin]:
    from twinkle.component import default_registry

    return [Plugin(row.distribution, row.version, row.package, row.location) for row in default_registry().plugins()]


def installed_distributions() -> list[str]:
    """The distributions of all installed plugins: also one that only adds a hub takes part in a run."""
    return [plugin.distribution for plugin in _installed_plugins()]


def package_digest(folder: Path) -> str:
    """The digest of a package's Python files and manifest: an editable installation changes without its version."""
    from twinkle_hub.digest import digest_of, sha256_of

    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".toml") and path.is_file())
    return "sha256:" + digest_of({path.relative_to(folder).as_posix(): sha256_of(path) for path in files})


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Those of ``names`` that are installed, with their versions, and Python's."""
    found = {name: installed_version(name) for name in sorted(set(names))}
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{name: version for name, version in found.items() if version is not None}}


def portable_path(path: Path | str) -> str:
    """``path`` relative to the working folder where it is in it, else to the user's home (``~``), else as it is."""
    absolute = Path(path).expanduser().absolute()
    for base, start in ((Path.cwd(), "."), (Path.home(), "~")):
        if absolute.is_relative_to(base):
            within = absolute.relative_to(base).as_posix()
            return start if within == "." else f"{start}/{within}"
    return absolute.as_posix()


def fingerprint(path: Path, patterns: Patterns | None = None) -> dict[str, Any]:
    """What a file, or the files of a folder that ``patterns`` choose, hold: ``digest``, number of ``files``, their ``bytes``.

    The digest is over names and contents; of files larger than ``WHOLE_BYTES`` over their size and ``EDGE_BYTES`` at either end, so
    one that was changed in the middle alone isn't noticed. Links are followed, hidden files left out.
    """
    from twinkle_hub.digest import digest_of

    files = {path.name: path} if path.is_file() else _files_below(path, patterns or Patterns())
    rows = {name: _content_digest(file) for name, file in files.items()}
    return {
        "digest": f"sha256:{digest_of(rows)}",
        "files": len(rows),
        "bytes": sum(file.stat().st_size for file in files.values()),
    }


def _files_below(folder: Path, patterns: Patterns) -> dict[str, Path]:
    from twinkle_hub.patterns import matching

    found = {
        name: path
        for path in folder.rglob("*")
        if not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
        and path.is_file()
        and (name := path.relative_to(folder).as_posix())
    }
    chosen = sorted(matching(found, patterns.allow, patterns.ignore))
    return {name: found[name] for name in chosen[:MAX_FILES]}


def _content_digest(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        hashed = hashlib.sha256(str(size).encode())
        hashed.update(stream.read(EDGE_BYTES))
        stream.seek(-EDGE_BYTES, 2)
        hashed.update(stream.read(EDGE_BYTES))
        return hashed.hexdigest()


def script_source() -> dict[str, Any] | None:
    """The script that runs: its name, the SHA-256 of its text, the commit of the git checkout that it is in; None at a prompt."""
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    if name is None or not Path(name).is_file():
        return None
    path = Path(name).absolute()
    folder = next((parent for parent in path.parents if (parent / ".git").exists()), None)
    return {
        "name": path.name if folder is None else path.relative_to(folder).as_posix(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "git_commit": None if folder is None else git_commit(folder),
    }


def git_commit(checkout: Path) -> str | None:
    """The commit that is checked out, read from git's own files: no program is run."""
    try:
        git = checkout / ".git"
        if git.is_file():  # a worktree or submodule
            git = (checkout / git.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        name = head.removeprefix("ref:").strip()
        shared = (git / (git / "commondir").read_text().strip()).resolve() if (git / "commondir").is_file() else git
        for folder in (git, shared):
            if (folder / name).is_file():
                return (folder / name).read_text().strip()
        packed = (shared / "packed-refs").read_text().splitlines()
        return next((line.split(" ")[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, UnicodeDecodeError):
        return None
