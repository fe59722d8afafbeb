"""Where the assistant's turns lie in a rendered chat.

A span begins where the model would take over after the generation prompt and ends with the end-of-turn marker that it has to
emit; white space that a template puts after that marker belongs to nobody. Works on characters of one rendered text, for any
template: by its ``{% generation %}`` blocks, else by the turn's header and end that probe chats show, else by rendering
prefixes of the chat; a turn that none of these finds is an error, never a guess. Knows nothing of tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twinkle.errors import DataError
from twinkle_plugin_templates.rendering import ChatTemplate, Messages, Span, Tools

_USERS = ("Twinklequestionone", "Twinklequestiontwo")
_ANSWERS = ("Twinkleanswerone", "Twinkleanswertwo")
_MARK = "Twinkleanswermark"


@dataclass(frozen=True, slots=True)
class TurnShape:
    """What surrounds an assistant turn in one template.

    Attributes:
        header: the text after which an assistant turn begins: what every turn's header and the generation prompt share.
        opens_turn: the header belongs to assistant turns alone (else it is the end of what a user says, as ``[/INST]``).
        prefilled: what the generation prompt puts after the header, as ``<think>\\n``. Empty for most.
        ends: end-of-turn markers without white space. Empty where the template writes none.
        closing: what follows the marker of a chat's last turn; without markers, the white space that follows every turn's content.
    """

    header: str
    opens_turn: bool
    prefilled: str
    ends: tuple[str, ...]
    closing: str


class AssistantSpans:
    """Renders chats and finds the assistant's turns in them.

    ``stop_tokens`` are the tokenizer's special tokens; a turn's end is cut after one.
    """

    def __init__(self, template: ChatTemplate, stop_tokens: Sequence[str] = ()) -> None:
        self.template = template
        self._stop_tokens = tuple(stop_tokens)
        self.shape = learn_shape(template, self._stop_tokens)

    def __call__(self, messages: Messages, tools: Tools) -> tuple[str, list[Span]]:
        """The rendered chat, and one span for each assistant message, in order (``{% generation %}`` blocks: one for each block).

        Raises:
            DataError: the template refuses the chat, or an assistant turn can't be found in it.
        """
        if self.template.marks_generation:
            return self.template.with_spans(messages, tools)
        text = self.template(messages, tools)
        turns = [position for position, message in enumerate(messages) if message["role"] == "assistant"]
        spans = self._by_shape(text, messages, turns)
        if spans is None:
            spans = [self._by_prefix(text, messages, tools, position) for position in turns]
            self._check_order(spans, turns)
        return text, spans

    def _by_shape(self, text: str, messages: Messages, turns: Sequence[int]) -> list[Span] | None:
        """All spans by scanning for headers and ends; None where that could be wrong."""
        shape = self.shape
        if shape is None or not shape.ends or text.count(shape.header) != len(turns):
            return None
        markers = (shape.header, *shape.ends)
        if any(marker in written for message in messages for written in _written(message) for marker in markers):
            return None
        spans: list[Span] = []
        position = 0
        for turn in turns:
            start = text.find(shape.header, position)
            start += len(shape.header)
            position = _first_end(text, shape.ends, start)
            following = text.find(shape.header, start)
            if position < 0 or 0 <= following < position:
                return None
            if shape.prefilled and text.startswith(shape.prefilled, start):
                start += len(shape.prefilled)
            if not _holds(text[start:position], messages[turn]):
                return None
            spans.append((start, position))
        return spans

    def _by_prefix(self, text: str, messages: Messages, tools: Tools, turn: int) -> Span:
        """One span by rendering what comes before the turn and what comes up to it, or the chat with another answer."""
        start = self._start_by_prompt(text, messages[:turn], tools)
        end = len(text) if turn == len(messages) - 1 else self._end_by_prefix(text, messages[: turn + 1], tools)
        if start is None or end is None:
            marked = self._by_mark(text, messages, tools, turn)
            if marked is not None:
                start = marked[0] if start is None else start
                end = marked[1] if end is None else end
        if start is None or end is None or start > end or not _holds(text[start:end], messages[turn]):
            raise DataError(
                f"the assistant's turn in message {turn} can't be located in the rendered chat. Give a chat template with "
                f"{{% generation %}} blocks (chat_template=…), or split the chat so that this turn is its last."
            )
        return start, self._cut(text, start, end)

    def _start_by_prompt(self, text: str, before: Messages, tools: Tools) -> int | None:
        try:
            prompt = self.template(before, tools, add_generation_prompt=True)
        except DataError:  # many templates refuse an empty chat, or one that ends where this one would
            return None
        if text.startswith(prompt):
            return len(prompt)
        prefilled = self.shape.prefilled if self.shape else ""
        # A turn from earlier may lack what the generation prompt fills in, or the white space at its end.
        for shorter in (prompt.removesuffix(prefilled), prompt.rstrip()):
            if text.startswith(shorter):
                return len(shorter)
        return None

    def _end_by_prefix(self, text: str, up_to: Messages, tools: Tools) -> int | None:
        try:
            prefix = self.template(up_to, tools)
        except DataError:
            return None
        return len(prefix) if text.startswith(prefix) else None

    def _by_mark(self, text: str, messages: Messages, tools: Tools, turn: int) -> Span | None:
        """Bounds of the turn from a render in which its content is a mark: the text around the turn has to stay the same."""
        shape = self.shape
        if shape is None or not (shape.opens_turn or (turn and messages[turn - 1]["role"] == "user")):
            return None
        mark = _MARK
        while mark in text:
            mark = f"{_MARK}{os.urandom(4).hex()}"
        kept = {key: value for key, value in messages[turn].items() if key != "reasoning_content"}
        try:
            marked = self.template([*messages[:turn], {**kept, "content": mark}, *messages[turn + 1 :]], tools)
        except DataError:
            return None
        if marked.count(mark) != 1:
            return None
        at = marked.index(mark)
        start = marked.rfind(shape.header, 0, at) + len(shape.header)
        end = _first_end(marked, shape.ends, at)
        if not shape.ends and not messages[turn].get("tool_calls") and marked.startswith(shape.closing, at + len(mark)):
            end = at + len(mark) + len(shape.closing)
        tail = marked[end:]
        if start < len(shape.header) or end < 0 or text[:start] != marked[:start] or not text.endswith(tail):
            return None
        if shape.prefilled and text.startswith(shape.prefilled, start):
            start += len(shape.prefilled)
        return start, len(text) - len(tail)

    def _cut(self, text: str, start: int, end: int) -> int:
        """The end of a turn without what a template puts after its end-of-turn marker."""
        ends = (*(self.shape.ends if self.shape else ()), *self._stop_tokens)
        if end == len(text) and self.shape and text[start:].removesuffix(self.shape.closing).endswith(self.shape.ends):
            end -= len(self.shape.closing)
        stripped = text[start:end].rstrip()
        return start + len(stripped) if ends and stripped.endswith(ends) else end

    @staticmethod
    def _check_order(spans: Sequence[Span], turns: Sequence[int]) -> None:
        for turn, (_, end), (start, _) in zip(turns, spans, spans[1:], strict=False):
            if start < end:
                raise DataError(f"the assistant's turn in message {turn} overlaps the next one in the rendered chat.")


def learn_shape(template: ChatTemplate, stop_tokens: Sequence[str] = ()) -> TurnShape | None:
    """What surrounds assistant turns, learned by rendering a small chat of marks; None where the template can't be read so."""
    chat: list[dict[str, Any]] = []
    for user, answer in zip(_USERS, _ANSWERS, strict=True):
        chat += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    try:
        text = template(chat)
        asked, prompts = zip(*((template(chat[:turn]), template(chat[:turn], None, True)) for turn in (1, 3)), strict=True)
    except DataError:
        return None
    marks = [*_USERS, *_ANSWERS]
    if any(text.count(mark) != 1 for mark in marks) or any(_USERS[turn] not in prompts[turn] for turn in (0, 1)):
        return None
    headers = [_between(text, user, answer) for user, answer in zip(_USERS, _ANSWERS, strict=True)]
    tail, prompted = (side[side.index(_USERS[0]) + len(_USERS[0]) :] for side in (asked[0], prompts[0]))
    generation_prompt = prompted[len(_common_prefix(tail, prompted)) :].lstrip()
    header = next((part for part in _prefixes(generation_prompt) if all(part in found for found in headers)), "")
    opens_turn = bool(header.strip())
    if not opens_turn:  # no generation prompt of its own: the assistant takes over after what ends the user's turn
        header, generation_prompt = _common_prefix(_common_prefix(*headers), prompted), prompted
    if not header.strip():
        return None
    ends, closing = _ends(text, stop_tokens)
    return TurnShape(header, opens_turn, generation_prompt[len(header) :], ends, closing)


def _ends(text: str, stop_tokens: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The markers that end a turn, which an answer before a user's turn shows as well, and what else follows the last answer."""
    last = text[text.index(_ANSWERS[1]) + len(_ANSWERS[1]) :]
    inner = _between(text, _ANSWERS[0], _USERS[1])
    shared = _common_prefix(last, inner)
    if shared.strip():
        return (shared.rstrip(),), last[len(shared.rstrip()) :]
    first = min((token for token in stop_tokens if token in inner), key=inner.index, default=None)
    if last.strip() and first:
        return (last.rstrip(), inner[: inner.index(first) + len(first)]), ""
    return (), shared


def _between(text: str, before: str, after: str) -> str:
    start = text.index(before) + len(before)
    return text[start : text.index(after, start)]


def _first_end(text: str, ends: Sequence[str], start: int) -> int:
    """The position after the first of ``ends`` from ``start`` on; -1 where there is none."""
    found = [(at, len(end)) for end in ends if (at := text.find(end, start)) >= 0]
    return sum(min(found)) if found else -1


def _written(message: Mapping[str, Any]) -> list[str]:
    """The texts of a message in which somebody could have written what looks like a header or an end."""
    texts = [message["content"] or "", message.get("reasoning_content") or ""]
    if message.get("tool_calls"):
        texts.append(str(message["tool_calls"]))
    return texts


def _holds(span: str, message: Mapping[str, Any]) -> bool:
    """Whether a span shows what the message says; templates may trim it and drop its thinking."""
    said = message["content"] or ""
    return said.strip() in span or said.rpartition("</think>")[2].strip() in span


def _common_prefix(one: str, other: str) -> str:
    """What both begin with, without a tag that only begins alike."""
    length = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return _whole_tags(one[:length])


def _prefixes(text: str) -> Iterator[str]:
    """The beginnings of ``text`` that cut no tag, longest first."""
    for length in range(len(text), 0, -1):
        if _whole_tags(text[:length]) == text[:length]:
            yield text[:length]


def _whole_tags(text: str) -> str:
    opened = text.rfind("<")
    return text[:opened] if opened > text.rfind(">") else text
