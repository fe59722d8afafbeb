"""Preprocessors for widely used row formats: self-cognition, Alpaca, GSM8K.

Each turns one raw row into a trajectory. Plain Python on plain dictionaries; knows nothing of tokens, files or torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twinkle.data_format import Message, Trajectory
from twinkle.errors import ConfigError, DataError
from twinkle.preprocessor import Preprocessor, Row


class SelfCognitionProcessor(Preprocessor):
    """Teaches a model its name and author (the format of ms-swift's self-cognition data).

    Rows have ``query``, ``response`` and, where there is one, ``tag`` (``zh`` or ``en``). ``{{NAME}}`` and ``{{AUTHOR}}``, in
    capitals or not, become the name and the author.

    Args:
        model_name: the name, or a pair: the name in Chinese rows, the name in all others.
        model_author: the author, likewise.
        system: a system message to begin with.
    """

    def __init__(
        self,
        model_name: str | Sequence[str],
        model_author: str | Sequence[str],
        system: str | None = None,
    ) -> None:
        self._names = _pair("model_name", model_name)
        self._authors = _pair("model_author", model_author)
        self._system = system

    def preprocess(self, row: Row) -> Trajectory:
        """The question and the answer, with name and author filled in.

        Raises:
            DataError: the row has no ``query`` or ``response``.
        """
        query, response = _text(row, "query"), _text(row, "response")
        language = 0 if row.get("tag") == "zh" else 1
        words = {"name": self._names[language], "author": self._authors[language]}

        def filled(text: str) -> str:
            return _PLACEHOLDER.sub(lambda match: words[match[1].lower()], text)

        return {"messages": _chat(self._system, filled(query), filled(response))}


class AlpacaProcessor(Preprocessor):
    """Instructions (Stanford Alpaca): ``instruction``, ``input`` where there is one, ``output``.

    The question is the instruction, a blank line and the input; just the instruction where the input is empty. A row's own
    ``system`` goes before the ``system`` given here; pairs in ``history`` come before the question.
    """

    def __init__(self, system: str | None = None) -> None:
        self._system = system

    def preprocess(self, row: Row) -> Trajectory:
        """The instruction and its output.

        Raises:
            DataError: the row has no ``instruction`` or ``output``.
        """
        instruction, output = _text(row, "instruction"), _text(row, "output")
        extra = row.get("input") or ""
        query = f"{instruction}\n\n{extra}" if extra else instruction
        messages = _chat(row.get("system") or self._system, query, output)
        history: list[Message] = []
        for asked, answered in row.get("history") or ():
            history += _chat(None, asked, answered)
        messages[-2:-2] = history
        return {"messages": messages}


class GSM8KProcessor(Preprocessor):
    """Grade-school mathematics (arXiv:2110.14168): ``question``, and ``answer`` that ends in ``#### <number>``.

    ``user_data`` holds ``ground_truth``: the number after ``####`` as text, without thousands separators.

    Args:
        system: a system message to begin with.
        add_assistant: end with the worked answer, to be trained on; without it the row is a prompt to sample from.
        keep_calculations: leave the ``<<48/2=24>>`` marks of the original data in the answer.
    """

    def __init__(self, system: str | None = None, add_assistant: bool = False, keep_calculations: bool = False) -> None:
        self._system = system
        self._add_assistant = add_assistant
        self._keep_calculations = keep_calculations

    def preprocess(self, row: Row) -> Trajectory:
        """The question, with the answer where it is asked for.

        Raises:
            DataError: the row has no ``question`` or ``answer``, or the answer has no ``####``.
        """
        question, answer = _text(row, "question"), _text(row, "answer")
        _, mark, truth = answer.rpartition("####")
        if not mark:
            raise DataError("'answer' has no '####', which stands before the result in GSM8K rows.")
        shown = answer if self._keep_calculations else _CALCULATION.sub("", answer)
        return {
            "messages": _chat(self._system, question, shown if self._add_assistant else None),
            "user_data": {"ground_truth": truth.strip().replace(",", "")},
        }


_PLACEHOLDER = re.compile(r"\{\{\s*(name|author)\s*\}\}", re.IGNORECASE)
_CALCULATION = re.compile(r"<<[^<>]*>>")


def _chat(system: str | None, query: str, response: str | None) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": query})
    if response is not None:
        messages.append({"role": "assistant", "content": response})
    return messages


def _text(row: Row, name: str) -> str:
    value: Any = row.get(name)
    if isinstance(value, str):
        return value
    if name not in row:
        raise DataError(f"there is no field {name!r}")
    raise DataError(f"{name!r} has to be text, not {value!r:.60}")


def _pair(name: str, value: str | Sequence[str]) -> tuple[str, str]:
    if isinstance(value, str):
        return value, value
    if len(value) == 2 and all(isinstance(item, str) for item in value):
        return value[0], value[1]
    raise ConfigError(f"{name} has to be text, or a pair of texts (for Chinese rows, for all others), not {value!r}.")
