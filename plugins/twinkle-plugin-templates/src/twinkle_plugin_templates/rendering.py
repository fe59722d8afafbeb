"""Chat templates: Jinja source to a function from messages to text.

Renders exactly what ``tokenizer.apply_chat_template(tokenize=False)`` renders (Transformers' sandbox, filters and globals),
compiled once and called directly. Also tells where ``{% generation %}`` blocks of a template came to lie. Knows nothing of tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from twinkle.errors import ConfigError, DataError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Unicode noncharacters: never part of interchanged text, so they can mark positions in a render.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"

_DICT_ATTRIBUTES = frozenset(dir(dict))

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
Span = tuple[int, int]
"""Characters ``[start, end)`` of a rendered text."""


class ChatTemplate:
    """One compiled chat template.

    Args:
        source: the Jinja source.
        variables: what every render can see besides the chat: special tokens by name, ``enable_thinking``, ….

    Raises:
        ConfigError: the source doesn't compile.
    """

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        self.source = source
        self.variables = dict(variables)
        self.marks_generation = _GENERATION.search(source) is not None
        try:
            self._render = _environment(mark=False).from_string(source).render
            self._render_marked = _environment(mark=True).from_string(source).render if self.marks_generation else self._render
        except TemplateError as error:
            line = getattr(error, "lineno", "?")
            raise ConfigError(
                f"The chat template doesn't compile: line {line}: {error}. Give another one with chat_template=…."
            ) from None

    def __call__(
        self,
        messages: Messages,
        tools: Tools = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of a chat.

        Raises:
            DataError: the template refused the chat, with the template's own words.
        """
        return self._call(self._render, messages, tools, add_generation_prompt)

    def with_spans(self, messages: Messages, tools: Tools = None) -> tuple[str, list[Span]]:
        """The text of a chat, and where its ``{% generation %}`` blocks lie in it, in order.

        Raises:
            DataError: as for rendering; or the text itself holds a character that is needed as a mark (U+FDD0, U+FDD1).
        """
        marked = self._call(self._render_marked, messages, tools, False)
        parts = re.split(f"([{_OPEN}{_CLOSE}])", marked)
        text, spans, starts = "", [], []
        for part in parts:
            if part == _OPEN:
                starts.append(len(text))
            elif part == _CLOSE and starts:
                start = starts.pop()
                if not starts:  # nested blocks: the outermost counts
                    spans.append((start, len(text)))
            else:
                text += part
        if text != self(messages, tools):
            raise DataError("The chat holds U+FDD0 or U+FDD1, which aren't characters; they are used here as marks. Remove them.")
        return text, spans

    def _call(
        self,
        render: Callable[..., str],
        messages: Messages,
        tools: Tools,
        add_generation_prompt: bool,
    ) -> str:
        try:
            return render(
                messages=messages, tools=tools, documents=None, add_generation_prompt=add_generation_prompt, **self.variables
            )
        except Exception as error:  # a template may fail in any way: its arithmetic runs on the row's own data
            # An assistant's call of a tool often has no content; templates that don't expect that take empty text.
            spoken = [{**message, "content": ""} if message.get("content") is None else message for message in messages]
            if spoken != list(messages):
                return self._call(render, spoken, tools, add_generation_prompt)
            raise DataError(f"the chat template refused it: {type(error).__name__}: {error}") from error


class _GenerationBlocks(Extension):
    """``{% generation %}…{% endgeneration %}``: renders what is inside, between marks where they are asked for."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration of this attribute
    before = after = ""

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_wrap"), [], [], body).set_lineno(line)

    def _wrap(self, caller: Callable[[], str]) -> str:
        return self.before + caller() + self.after


class _MarkedGenerationBlocks(_GenerationBlocks):
    before, after = _OPEN, _CLOSE


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which allows what it always does, with two short cuts: its checks cost more than all else in a template."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._verdicts: dict[tuple[type, str], bool] = {}

    def getattr(self, obj: Any, attribute: str) -> Any:
        # A field of a message: a plain dictionary has no attributes but its methods, and the sandbox gives its values unchecked.
        if type(obj) is dict and attribute not in _DICT_ATTRIBUTES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # The sandbox judges by the object's type and the attribute's name alone.
        key = (type(obj), attr)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = super().is_safe_attribute(obj, attr, value)
        return verdict


def _environment(mark: bool) -> ImmutableSandboxedEnvironment:
    blocks = _MarkedGenerationBlocks if mark else _GenerationBlocks
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[blocks, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    # Jinja's own filter escapes HTML; Transformers' doesn't, and takes json.dumps' options.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)
