"""Template: chats to token ids and labels with the tokenizer's own chat template, and back to text.

Puts the parts together: rows are validated, rendered, encoded in one call for the batch, labelled by vectors and cut to length.
The tokenizer is loaded from a folder or a hub (never with code from it) and again, when first needed, after unpickling.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, get_args

import numpy as np

from twinkle.data_format import InputFeature, Trajectory
from twinkle.errors import ConfigError, DataError
from twinkle.template import BaseTemplate, TruncationStrategy
from twinkle_plugin_templates.bpe import fast_codec
from twinkle_plugin_templates.features import labels_of, span_weights, truncate
from twinkle_plugin_templates.rendering import ChatTemplate, Span
from twinkle_plugin_templates.rows import Row, parse_row, parse_text_row, rows_of_columns
from twinkle_plugin_templates.spans import AssistantSpans
from twinkle_plugin_templates.tokenization import Codec, Encoded, text_starts

_TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges*",
    "*token*.json",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "chat_template*",
    "config.json",
)


class Template(BaseTemplate):
    """Encodes chats with a model's chat template, or plain text.

    Labelled is what the model has to write: for each assistant message the tokens from where it takes over after the generation
    prompt (that of this ``enable_thinking``) to the end-of-turn token, which is included; white space after that token isn't. So
    ``<think>\\n\\n</think>\\n\\n`` that Qwen3's template puts into a last answer is labelled, unless ``enable_thinking=False``
    puts it into the generation prompt. Templates that write no end-of-turn token (GLM's) give turns that end with their content.

    Args:
        model_id: a folder or hub reference with the tokenizer's files (no others are fetched). May be left out with ``tokenizer``.
        use_chat_template: False: rows are plain text (``text``, or their messages' contents joined), every token is labelled, the
            tokenizer's own special tokens and an end-of-sequence token are added.
        max_length: tokens that a feature may have; None: no limit.
        truncation_strategy: what happens to longer rows: ``raise``; ``left`` keeps the end, ``right`` the beginning; ``split``
            makes several features; ``delete`` none. A cut row may be left without labels; it is kept.
        default_system: the system message of chats that have none.
        enable_thinking: passed to the chat template; None: the template's own default.
        chat_template: Jinja source, or the name of one of the tokenizer's templates, in place of the tokenizer's default.
        tokenizer: a loaded Transformers tokenizer, in place of loading ``model_id``'s.

    Raises:
        ConfigError: an argument doesn't fit, the tokenizer can't be loaded, or there is no chat template.
        HubError: ``model_id`` can't be fetched.
    """

    def __init__(
        self,
        model_id: str | os.PathLike[str] | None = None,
        use_chat_template: bool = True,
        max_length: int | None = 8192,
        truncation_strategy: TruncationStrategy = "raise",
        default_system: str | None = None,
        enable_thinking: bool | None = None,
        chat_template: str | None = None,
        tokenizer: Any = None,
    ) -> None:
        if (model_id is None) == (tokenizer is None):
            raise ConfigError("Give either model_id (where the tokenizer's files are) or tokenizer (a loaded one) to a Template.")
        if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1):
            raise ConfigError(f"max_length is {max_length!r}; it has to be a whole number of at least 1, or None for no limit.")
        if truncation_strategy not in get_args(TruncationStrategy):
            known = ", ".join(map(repr, get_args(TruncationStrategy)))
            raise ConfigError(f"truncation_strategy is {truncation_strategy!r}; it has to be one of {known}.")
        self.model_id = None if model_id is None else os.fspath(model_id)
        self.use_chat_template = use_chat_template
        self.max_length = max_length
        self.truncation_strategy = truncation_strategy
        self.default_system = default_system
        self.enable_thinking = enable_thinking
        self.chat_template = chat_template
        if tokenizer is not None:
            self.tokenizer = tokenizer
        self._check()

    @cached_property
    def tokenizer(self) -> Any:
        """The Transformers tokenizer."""
        assert self.model_id is not None  # __init__ saw to it
        return load_tokenizer(self.model_id)

    @property
    def eos_token_id(self) -> int | None:
        """The id of the tokenizer's end-of-sequence token, where it has one."""
        return self.tokenizer.eos_token_id

    @property
    def pad_token_id(self) -> int | None:
        """The id of the tokenizer's padding token; where it has none, of its end-of-sequence token."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def batch_encode(
        self, trajectories: Sequence[Trajectory] | Mapping[str, Sequence[Any]], *, add_generation_prompt: bool = False
    ) -> list[list[InputFeature]]:
        """Encode many at once; also takes a dictionary of columns.

        Features hold ``input_ids`` and ``labels`` (int32 arrays), ``length``, ``user_data`` where the row has it, and
        ``loss_weights`` (float32) where a message's ``loss_weight`` is neither 0 nor 1. With ``add_generation_prompt`` they end
        with the generation prompt, to sample from, and have no labels.

        Raises:
            DataError: a row is malformed, longer than allowed under ``raise``, or the chat template refuses it; or a turn of the
                assistant can't be found in the rendered chat; names the row.
        """
        given = rows_of_columns(trajectories) if isinstance(trajectories, Mapping) else trajectories
        rows = [self._parse(index, trajectory) for index, trajectory in enumerate(given)]
        if not rows:
            return []
        if not self.use_chat_template:
            return self._encode_texts(rows, labelled=not add_generation_prompt)
        if add_generation_prompt:
            texts = [_checked(row, self._render(row, True)) for row in rows]
            return self._features(rows, self._codec.encode_batch(texts), None)
        rendered = [self._locate(row) for row in rows]
        texts = [_checked(row, text) for row, (text, _) in zip(rows, rendered, strict=True)]
        encoded = self._codec.encode_batch(texts)
        weights = span_weights(
            encoded, text_starts(texts).tolist(), [spans for _, spans in rendered], [_turn_weights(row) for row in rows]
        )
        return self._features(rows, encoded, weights)

    def render(self, trajectory: Trajectory, add_generation_prompt: bool = False) -> str:
        """The text of one chat, as the model sees it.

        Raises:
            DataError: the row is malformed, or the chat template refuses it.
        """
        return self._render(parse_row(0, trajectory, self.default_system), add_generation_prompt)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False, **kwargs: Any) -> str:
        """The text of ``token_ids``; ``kwargs`` go to the tokenizer."""
        return self.tokenizer.decode(np.asarray(token_ids, np.int64).tolist(), skip_special_tokens=skip_special_tokens, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_codec", "_chats", "_special_ids"):
            state.pop(name, None)
        if self.model_id is not None:
            state.pop("tokenizer", None)
        return state

    def __repr__(self) -> str:
        source = repr(self.model_id) if self.model_id is not None else f"tokenizer={type(self.tokenizer).__name__}"
        return f"{type(self).__name__}({source}, max_length={self.max_length}, truncation_strategy={self.truncation_strategy!r})"

    @cached_property
    def _codec(self) -> Codec:
        return fast_codec(self.tokenizer)

    @cached_property
    def _chats(self) -> dict[bool, AssistantSpans]:
        """What renders chats, by whether they have tools: a tokenizer may have a template of its own for those."""
        sources = {tools: self._source(tools) for tools in (False, True)}
        variables = dict(self.tokenizer.special_tokens_map)
        if self.enable_thinking is not None:
            variables["enable_thinking"] = self.enable_thinking
        stop_tokens = [token for token in self.tokenizer.all_special_tokens if token.strip()]
        plain = AssistantSpans(ChatTemplate(sources[False], variables), stop_tokens)
        same = sources[True] == sources[False]
        return {False: plain, True: plain if same else AssistantSpans(ChatTemplate(sources[True], variables), stop_tokens)}

    @cached_property
    def _special_ids(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer itself puts before and after a plain text, and an end-of-sequence token at the very end."""
        bare = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        at = next((at for at in range(len(full)) if full[at : at + len(bare)] == bare), 0)
        after = full[at + len(bare) :]
        if self.eos_token_id is not None and after[-1:] != [self.eos_token_id]:
            after = [*after, self.eos_token_id]
        return full[:at], after

    def _check(self) -> None:
        """Fail now rather than at the first row: the tokenizer has to load, and the chat template to compile."""
        if self.use_chat_template:
            _ = self._chats
        _ = self._codec

    def _source(self, tools: bool) -> str:
        try:
            return self.tokenizer.get_chat_template(self.chat_template, [] if tools else None)
        except ValueError as error:
            name = self.model_id or type(self.tokenizer).__name__
            why = "has no chat template" if not self.tokenizer.chat_template else f"has no default chat template ({error})"
            raise ConfigError(
                f"The tokenizer of {name!r} {why}. Give one with chat_template=… (Jinja source), or train on plain text with "
                f"use_chat_template=False."
            ) from None

    def _parse(self, index: int, trajectory: Any) -> Row:
        return parse_row(index, trajectory, self.default_system) if self.use_chat_template else parse_text_row(index, trajectory)

    def _render(self, row: Row, add_generation_prompt: bool) -> str:
        try:
            return self._chats[row.tools is not None].template(row.messages, row.tools, add_generation_prompt)
        except DataError as error:
            raise DataError(f"Row {row.index}: {error}") from error

    def _locate(self, row: Row) -> tuple[str, list[Span]]:
        try:
            text, spans = self._chats[row.tools is not None](row.messages, row.tools)
        except DataError as error:
            raise DataError(f"Row {row.index}: {error}") from error
        turns = sum(message["role"] == "assistant" for message in row.messages)
        if row.weights is not None and len(spans) != turns:
            raise DataError(
                f"Row {row.index}: messages have a 'loss_weight', but the template's {len(spans)} {{% generation %}} blocks "
                f"don't match the assistant's {turns} messages. Leave the weights out, or give a template with one block a message."
            )
        return text, spans

    def _encode_texts(self, rows: Sequence[Row], labelled: bool) -> list[list[InputFeature]]:
        encoded = self._codec.encode_batch([_checked(row, row.text or "") for row in rows])
        before, after = self._special_ids
        if not labelled:
            after = []
        pieces = np.split(encoded.ids, encoded.bounds[1:-1])
        ids = np.concatenate([part for piece in pieces for part in (np.array(before, np.int32), piece, np.array(after, np.int32))])
        counts = encoded.counts + (len(before) + len(after))
        whole = Encoded(ids, np.zeros(0, np.int64), counts)
        return self._features(rows, whole, np.ones(len(ids), np.float32) if labelled else None)

    def _features(self, rows: Sequence[Row], encoded: Encoded, weights: np.ndarray | None) -> list[list[InputFeature]]:
        bounds = encoded.bounds.tolist()
        labels = None if weights is None else labels_of(encoded.ids, weights)
        features = []
        for row, start, end in zip(rows, bounds, bounds[1:], strict=False):
            feature: InputFeature = {"input_ids": encoded.ids[start:end], "length": end - start}
            if labels is not None:
                feature["labels"] = labels[start:end]
            if weights is not None and row.weights is not None and any(weight not in (0.0, 1.0) for weight in row.weights):
                feature["loss_weights"] = weights[start:end]
            if row.user_data is not None:
                feature["user_data"] = row.user_data
            features.append(truncate(row.index, feature, self.max_length, self.truncation_strategy))
        return features


def load_tokenizer(reference: str) -> Any:
    """The tokenizer in a folder or hub repository, fetched without the model's weights. Runs no code from there.

    Raises:
        HubError: it can't be fetched.
        ConfigError: there is no tokenizer that Transformers can load.
    """
    from transformers import AutoTokenizer

    from twinkle.hub import download_model

    folder = download_model(reference, allow_patterns=_TOKENIZER_FILES)
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"No tokenizer can be loaded from {reference!r} ({folder}): {error}. It has to hold tokenizer.json, or the files of a "
            f"tokenizer that Transformers knows; tokenizers that need code of their own aren't loaded."
        ) from error


def _turn_weights(row: Row) -> list[float] | None:
    if row.weights is None:
        return None
    return [weight for message, weight in zip(row.messages, row.weights, strict=True) if message["role"] == "assistant"]


def _checked(row: Row, text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = text[error.start : error.start + 1]
            raise DataError(
                f"Row {row.index} holds {found!r}, half of a surrogate pair, which is no character. Repair the text."
            ) from None
    return text
