"""Rows as the template takes them: validated messages, tools and user data.

Turns what people give (trajectories, or a dictionary of columns) into ``Row`` objects that name their position in errors.
Never changes what it was given. Knows nothing of tokenizers or chat templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from twinkle.data_format import Role
from twinkle.errors import DataError

ROLES: frozenset[str] = frozenset(get_args(Role))


@dataclass(frozen=True, slots=True)
class Row:
    """One validated row.

    ``index`` is its position in the batch, for error messages. ``weights`` has one entry a message; None: 1 for each.
    """

    index: int
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    user_data: dict[str, Any] | None = None
    weights: list[float] | None = None
    text: str | None = None


def rows_of_columns(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The rows of a dictionary of columns, as ``datasets`` gives to batched functions.

    Raises:
        DataError: columns of unequal length.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The columns of this batch differ in length: {lengths}. Each column needs one entry a row.")
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def parse_row(index: int, trajectory: Any, default_system: str | None = None) -> Row:
    """Validate one chat. Contents that come as a list of text parts are joined.

    Keys of messages that are None (as Arrow fills in where rows differ) count as absent.

    Raises:
        DataError: no messages, an unknown role, content that is neither text nor a list of parts, a bad ``loss_weight``, tools that
            aren't a list of dictionaries; names the row, the message and the field.
    """
    if not isinstance(trajectory, Mapping):
        raise DataError(f"Row {index} is of type {type(trajectory).__name__}, not a dictionary with 'messages'.")
    given = trajectory.get("messages")
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        found = f"has 'messages' of type {type(given).__name__}" if given else f"has no messages (its fields: {_names(trajectory)})"
        raise DataError(
            f"Row {index} {found}. A chat row needs 'messages', a list of {{'role': …, 'content': …}}; map the data set with a "
            f"preprocessor that makes them, or use use_chat_template=False for plain text."
        )
    messages = [_message(index, position, message) for position, message in enumerate(given)]
    weights = [_weight(index, position, message) for position, message in enumerate(messages)]
    if default_system is not None and not any(message["role"] in ("system", "developer") for message in messages):
        messages.insert(0, {"role": "system", "content": default_system})
        weights.insert(0, 1.0)
    return Row(
        index=index,
        messages=messages,
        tools=_tools(index, trajectory.get("tools")),
        user_data=trajectory.get("user_data"),
        weights=weights if any(weight != 1.0 for weight in weights) else None,
    )


def parse_text_row(index: int, trajectory: Any) -> Row:
    """Validate one row of plain text: its ``text``, or the contents of its messages one after the other, with nothing between them.

    Raises:
        DataError: neither is there, or not text; names the row and the field.
    """
    if isinstance(trajectory, Mapping) and trajectory.get("text") is not None:
        text = trajectory["text"]
        if not isinstance(text, str):
            raise DataError(f"Row {index}: 'text' is of type {type(text).__name__}, not a string.")
        return Row(index=index, messages=[], user_data=trajectory.get("user_data"), text=text)
    row = parse_row(index, trajectory)
    return Row(
        index=index, messages=[], user_data=row.user_data, text="".join(message["content"] or "" for message in row.messages)
    )


def _message(index: int, position: int, message: Any) -> dict[str, Any]:
    where = f"Row {index}, message {position}"
    if not isinstance(message, Mapping):
        raise DataError(f"{where} is of type {type(message).__name__}, not a dictionary with 'role' and 'content'.")
    role = message.get("role")
    if role not in ROLES:
        known = ", ".join(get_args(Role))
        raise DataError(f"{where}: 'role' is {role!r}. Known roles: {known}. Rename it in a preprocessor.")
    content = message.get("content")
    if content is None:
        if role != "assistant" or not (message.get("tool_calls") or message.get("reasoning_content")):
            raise DataError(f"{where} (role {role!r}) has no 'content'. Only an assistant's message with 'tool_calls' may lack it.")
    elif isinstance(content, list):
        content = _joined_parts(where, content)
    elif not isinstance(content, str):
        raise DataError(
            f"{where} (role {role!r}): 'content' is of type {type(content).__name__}; it has to be text, or a list of parts."
        )
    clean = {key: value for key, value in message.items() if value is not None}
    clean["content"] = content
    return clean


def _joined_parts(where: str, parts: list[Any]) -> str:
    """The text of a message that comes in parts. Chat templates that take parts take text as well, and most take text alone."""
    for number, part in enumerate(parts):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise DataError(f"{where}: part {number} of 'content' is no dictionary with a 'type'.")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise DataError(f"{where}: part {number} of 'content' has type 'text' and no 'text'.")
        if part["type"] != "text":
            raise DataError(f"{where}: part {number} of 'content' is of type {part['type']!r}; this template encodes text alone.")
    return "".join(part["text"] for part in parts)


def _weight(index: int, position: int, message: dict[str, Any]) -> float:
    weight = message.pop("loss_weight", None)
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise DataError(f"Row {index}, message {position}: 'loss_weight' is {weight!r}; it has to be a number of at least 0.")
    if weight and message["role"] != "assistant":
        raise DataError(
            f"Row {index}, message {position} (role {message['role']!r}) has a 'loss_weight' of {weight}; only assistant turns "
            f"are trained on. Leave it out or set it to 0."
        )
    return float(weight)


def _tools(index: int, tools: Any) -> list[dict[str, Any]] | None:
    if not tools:
        return None
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError(
            f"Row {index}: 'tools' has to be a list of dictionaries (JSON schemas of functions), not {type(tools).__name__}."
        )
    return [dict(tool) for tool in tools]


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "none"
