"""Checking a component's configuration against what its manifest declares.

A schema is plain data: for each key its ``type`` and perhaps ``default``, ``min``, ``max``, ``choices``. Knows nothing of
manifests or components; the same rules check the defaults in a manifest.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (Integral,),
    "float": (Real,),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (Mapping,),
}


def value_error(field: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with ``value`` under ``field``, or ``None``: a phrase such as ``it has to be at least 0``."""
    kind = field["type"]
    is_number = kind in ("int", "float")
    if kind != "any" and (not isinstance(value, _TYPES[kind]) or (is_number and isinstance(value, bool))):
        return f"it has to be of type {kind}, not {type(value).__name__}"
    choices: Sequence[Any] | None = field.get("choices")
    if choices is not None and value not in choices:
        return f"it has to be one of {', '.join(map(repr, choices))}"
    low, high = field.get("min"), field.get("max")
    # Written so that a NaN, which compares false with everything, doesn't pass.
    if low is not None and not value >= low:
        return f"it has to be at least {low}"
    if high is not None and not value <= high:
        return f"it has to be at most {high}"
    return None


def config_errors(schema: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with ``config``; each entry names the key. A component that declares nothing takes anything."""
    if not schema:
        return []
    errors = []
    for key, value in config.items():
        if key not in schema:
            near = difflib.get_close_matches(key, schema, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            errors.append(f"unknown key {key!r}.{hint} It takes: {', '.join(schema)}")
        elif value is None:  # TOML has no null, so a manifest can't say whether it is taken; the component itself does
            continue
        elif error := value_error(schema[key], value):
            errors.append(f"{key}={value!r}: {error}")
    return errors
