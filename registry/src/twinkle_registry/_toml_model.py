"""TOML files checked against pydantic models, with errors that name file, line and key.

What manifests, policies, the trust store and revocation lists have in common. Knows nothing of what any of them means.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from twinkle_registry._toml import Key, key_lines, line_of, read_toml, unknown_key, visible
from twinkle_registry.errors import ManifestError, PolicyError


class TomlModel(BaseModel):
    """A table of a checked file: unknown keys and wrong types are errors, nothing is converted, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_MOST_ERRORS, _LONGEST_MESSAGE = 20, 400

Model = TypeVar("Model", bound=TomlModel)


def read_file(path: Path) -> bytes:
    """The content of ``path``.

    Raises:
        PolicyError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path}: can't be read: {error.strerror or error}.") from None


def parse_model(model: type[Model], content: bytes, source: str, *, required: Sequence[str] = ()) -> tuple[Model, dict[Key, int]]:
    """The model that ``content`` holds, and the line of each of its keys; ``source`` is what errors call it.

    Args:
        required: keys that have to be there although the model has defaults for them.

    Raises:
        PolicyError: it isn't TOML, or doesn't fit; names file, line and key of everything that is wrong.
    """
    try:
        text, data = read_toml(content, source)
    except ManifestError as error:
        raise PolicyError(str(error)) from None
    missing = [key for key in required if key not in data]
    if missing:
        raise PolicyError("\n".join(f"{source}:1: {key}: is missing." for key in missing))
    found = model_or_errors(model, data)
    if isinstance(found, list):
        raise PolicyError("\n".join(at(source, text, key, message) for key, message in found))
    return found, key_lines(text)


def model_or_errors(model: type[Model], data: dict[str, Any]) -> Model | list[tuple[Key, str]]:
    """The model that ``data`` holds; or what is wrong with it, each with its key, as much as anybody reads."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        return [(detail["loc"], _shortened(_explain(model, detail))) for detail in found[:_MOST_ERRORS]]


def at(source: str, text: str, key: Sequence[str | int], message: str) -> str:
    """``message`` with file, line and key before it; what can't be seen in the key is made visible."""
    return f"{source}:{line_of(text, key)}: {_dotted(key)}: {message}."


def _dotted(key: Sequence[str | int]) -> str:
    shown = ""
    for part in key:
        if part == "[key]":  # how pydantic says that it is about the key before
            continue
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    shown = visible(_shortened(shown))
    return shown or "(the whole file)"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE // 2]}...{text[-_LONGEST_MESSAGE // 2 :]}"


def _explain(model: type[BaseModel], detail: Any) -> str:
    match detail["type"]:
        case "extra_forbidden":
            *parents, key = detail["loc"]
            fields = _model_at(model, parents).model_fields
            return unknown_key(str(key), [field.alias or name for name, field in fields.items()])
        case "missing":
            return "is missing"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "model_type" | "dict_type":
            message = "has to be a table"
        case "list_type":
            message = "has to be a list, or one string where strings are listed"
        case _:
            message = str(detail["msg"])[0].lower() + str(detail["msg"])[1:]
    found = repr(detail["input"])
    return f"{message}, and this is {found if len(found) <= 80 else found[:77] + '...'}"


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """The model of the table at ``path`` inside of ``model``."""
    for part in path:
        if part in model.model_fields:  # else a place in a list, or a key of the user's own
            inner = [model.model_fields[str(part)].annotation]
            while inner:
                found = inner.pop()
                if isinstance(found, type) and issubclass(found, BaseModel):
                    model = found
                    break
                inner.extend(get_args(found))
    return model
