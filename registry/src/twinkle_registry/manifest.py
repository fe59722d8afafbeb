"""The manifest of a plugin: ``twinkle.toml``, checked.

``load_manifest`` reads one file into frozen models. What isn't known is an error, and every error names file, line and key. Knows
nothing of training: a kind is an identifier here. Imported only when a manifest has to be read; the index remembers the result.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from twinkle_registry._toml import line_of, read_toml
from twinkle_registry._toml_model import TomlModel, at, model_or_errors
from twinkle_registry.config_schema import value_error
from twinkle_registry.errors import ManifestError

SCHEMA = 1
MAX_BYTES = 2**18
"""No manifest is larger: our own largest is a fiftieth of it, and a stranger's is read before anybody allowed anything."""
_MOST_DOTS = 500  # in a line; the time that tomllib takes for a dotted key grows with the square of its parts


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion:
        raise ValueError(f"{text!r} is no version; write one like '1.2.0'") from None
    return text


def _specifiers(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError(f"{text!r} is no range of versions; write one like '>=1,<2'") from None
    return text


def _requirement(text: str) -> str:
    try:
        address = Requirement(text).url
    except (InvalidRequirement, RecursionError):
        raise ValueError(f"{text!r} is no requirement; write one like 'torch>=2.6'") from None
    if address is not None or not text.isprintable():  # it is shown, and in a command: nobody shall install what a stranger hosts
        raise ValueError(f"{text!r} has an address or characters that can't be seen; write a name and versions, like 'torch>=2.6'")
    return text


def _matching(pattern: str, what: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"{text!r} is no {what}")
        return text

    return AfterValidator(check)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"has to be a number, and this is {value!r}")
    return value


Number = Annotated[Any, AfterValidator(_number)]

_NAME = r"[A-Za-z_]\w*"
_DOTTED = rf"{_NAME}(?:\.{_NAME})*"

Identifier = Annotated[str, _matching(_NAME, "identifier: use letters, digits and underscores")]
KindName = Annotated[str, _matching(r"[a-z][a-z0-9_]*", "kind: use small letters, digits and underscores, like 'loss'")]
Entry = Annotated[
    str, _matching(rf"(?:{_DOTTED})?:{_DOTTED}", "entry; write 'module:Attribute', the module relative to the package")
]
Module = Annotated[str, _matching(_DOTTED, "module; write it relative to the package, like 'hooks'")]
HookName = Annotated[str, _matching(r"twinkle_[a-z0-9_]+", "hook; the names of hooks begin with 'twinkle_'")]
PluginName = Annotated[str, _matching(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", "name: use letters, digits, '-', '_' and '.'")]
OneLine = Annotated[str, StringConstraints(pattern=r"^[^\n]*$")]


class ConfigField(TomlModel):
    """One configuration key of a component. Whether it may be left out or be ``None`` is for the component's signature to say."""

    type: Literal["str", "int", "float", "bool", "list", "dict", "any"]
    default: Any = None
    min: Number = None
    max: Number = None
    choices: list[Any] | None = Field(default=None, min_length=1)
    doc: str = ""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ConfigField:
        if self.type not in ("int", "float") and (self.min is not None or self.max is not None):
            raise ValueError(f"'min' and 'max' are for numbers, and the type is {self.type!r}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        limits = {"type": self.type, "min": self.min, "max": self.max}
        for choice in self.choices or ():
            if error := value_error(limits, choice):
                raise ValueError(f"the choice {choice!r} doesn't fit: {error}")
        if "default" in self.model_fields_set and (error := value_error({**limits, "choices": self.choices}, self.default)):
            raise ValueError(f"the default {self.default!r} doesn't fit: {error}")
        return self

    def as_data(self) -> dict[str, Any]:
        """What was declared, as plain data."""
        return self.model_dump(include=set(self.model_fields_set))


class ComponentTable(TomlModel):
    """A ``[[component]]``."""

    kind: KindName
    name: Identifier
    entry: Entry
    pure: bool = False
    config: dict[Identifier, ConfigField] = Field(default_factory=dict)


class HooksTable(TomlModel):
    """``hooks`` under ``[plugin]``: the names of the hooks that the plugin implements, and the module that holds them."""

    module: Module
    names: list[HookName] = Field(min_length=1)


class PluginTable(TomlModel):
    """``[plugin]``."""

    name: PluginName
    version: Annotated[str, AfterValidator(_version)]
    api: Annotated[str, AfterValidator(_specifiers)]
    requires: list[Annotated[str, AfterValidator(_requirement)]] = Field(default_factory=list)
    license: OneLine = ""
    summary: OneLine = ""
    hooks: HooksTable | None = None


class Manifest(TomlModel):
    """A whole ``twinkle.toml``."""

    schema_version: int = Field(alias="schema", ge=1)
    plugin: PluginTable
    component: list[ComponentTable] = Field(default_factory=list)


def load_manifest(path: Path) -> Manifest:
    """Read and check the manifest at ``path``.

    Raises:
        ManifestError: it can't be read, or isn't valid; names file, line and key of everything that is wrong.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror or error}.") from None
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, source: str) -> Manifest:
    """Check a manifest's content; ``source`` is what errors call it.

    Raises:
        ManifestError: as ``load_manifest``; or it is larger than ``MAX_BYTES``.
    """
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{source}:1: is {len(content):,} bytes, and no manifest is larger than {MAX_BYTES:,}.")
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.count(b".") > _MOST_DOTS:
            raise ManifestError(f"{source}:{number}: has more than {_MOST_DOTS} dots in a line, and no manifest needs them.")
    text, data = read_toml(content, source)
    if "schema" in data and isinstance(data["schema"], int) and data["schema"] > SCHEMA:
        raise ManifestError(
            f"{source}:{line_of(text, ['schema'])}: schema: {data['schema']} is newer than this twinkle-registry reads ({SCHEMA}). "
            "Upgrade it: pip install --upgrade twinkle-registry"
        )
    manifest = model_or_errors(Manifest, data)
    if isinstance(manifest, list):
        raise ManifestError("\n".join(at(source, text, key, message) for key, message in manifest))
    seen: set[tuple[str, str]] = set()
    for place, component in enumerate(manifest.component):
        if (component.kind, component.name) in seen:
            key = ("component", place, "name")
            raise ManifestError(at(source, text, key, f"there are two {component.kind} components named {component.name!r}"))
        seen.add((component.kind, component.name))
    return manifest
