"""Real tokenizers and chat templates, where they lie beside the checkout: ids, renders and labels agree with references."""

import copy
import json
import lzma
import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinkle.errors import DataError
from twinkle_plugin_templates.bpe import BPECodec, fast_codec
from twinkle_plugin_templates.rendering import ChatTemplate
from twinkle_plugin_templates.template import Template
from twinkle_plugin_templates.tokenization import HFCodec

TOKENIZERS = ["qwen3", "gpt2", "minimind-6400", "twinkle-tiny-qwen3", "stories260k"]
BYTE_LEVEL = set(TOKENIZERS) - {"stories260k"}
CHATS = {
    "one turn": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am é中."}],
    "with system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me."},
    ],
    "three turns": [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "First answer."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "  Second answer  "},
        {"role": "user", "content": "Three?"},
        {"role": "assistant", "content": "Third\n\nanswer."},
    ],
    "thoughts": [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>\nold thought\n</think>\n\nFirst answer."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "<think>\nnew thought\n</think>\n\nSecond answer."},
    ],
    "markers": [
        {"role": "user", "content": "What are <|im_end|> and <|end|> and </s>?"},
        {"role": "assistant", "content": "They end turns, as <|im_start|>assistant\n or [/INST] begin them."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "Welcome."},
    ],
}
WITHOUT_REFERENCE = {
    "chatml",
    "deepseek-r1-distill-qwen",
    "deepseek-r1-llamacpp",
    "deepseek-v3-tool",
    "deepseek-v3.2",
    "gemma-it",
} | {
    "glm-4.7-flash",
    "llama-3-instruct",
    "qwq-32b",
    "zephyr",
}
TOOL_CHAT = [
    {"role": "user", "content": "What is 2 + 2?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call12345", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}],
    },
    {"role": "tool", "content": "4", "name": "add", "tool_call_id": "call12345"},
    {"role": "assistant", "content": "It is four."},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]


@pytest.fixture(scope="module")
def tokenizers(shared, tmp_path_factory):
    from transformers import AutoTokenizer

    qwen3 = tmp_path_factory.mktemp("qwen3")
    for file in (shared / "data/tokenizers/qwen3").iterdir():
        data = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
        (qwen3 / file.name.removesuffix(".xz")).write_bytes(data)
    folders = [
        qwen3,
        *(shared / "data/tokenizers" / name for name in TOKENIZERS[1:3]),
        *(shared / "models" / name for name in TOKENIZERS[3:]),
    ]
    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in zip(TOKENIZERS, folders, strict=True)}


@pytest.fixture(scope="module")
def codecs(tokenizers):
    return {name: (fast_codec(tokenizer), HFCodec(tokenizer)) for name, tokenizer in tokenizers.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=80), max_size=4))
def test_ids_and_starts_of_any_text_are_the_tokenizer_s(codecs, name, texts):
    fast, exact = codecs[name]
    assert isinstance(fast, BPECodec) == (name in BYTE_LEVEL)
    ours, theirs = fast.encode_batch(texts), exact.encode_batch(texts)
    assert np.array_equal(ours.ids, theirs.ids)
    assert np.array_equal(ours.starts, theirs.starts)


@pytest.mark.parametrize("name", sorted(BYTE_LEVEL))
def test_ids_of_every_character_are_the_tokenizer_s(codecs, name):
    fast, exact = codecs[name]
    characters = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x20000, 3))]
    texts = ["".join(f"a{one}1 {one}b" for one in characters[start : start + 200]) for start in range(0, len(characters), 200)]
    assert np.array_equal(fast.encode_batch(texts).ids, exact.encode_batch(texts).ids)


@pytest.mark.parametrize(("name", "golden"), [("gpt2", "gpt-2"), ("qwen3", "qwen2")])
def test_ids_are_the_golden_ones(shared, codecs, name, golden):
    folder = shared / "data/tokenizers/golden"
    texts = (folder / f"{golden}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = [list(map(int, line.split())) for line in (folder / f"{golden}.out").read_text().splitlines()]
    encoded = codecs[name][0].encode_batch(texts)
    bounds = encoded.bounds
    ids = [encoded.ids[start:end].tolist() for start, end in pairwise(bounds)]
    assert ids[: len(expected)] == expected
    assert len(expected) > 40


def test_renders_are_the_golden_ones(shared):
    golden = json.loads((shared / "data/chat_templates/golden_cases.json").read_text(encoding="utf-8"))
    assert len(golden["cases"]) > 10
    for case in golden["cases"]:
        template = ChatTemplate(case["template"], {name: case[name] for name in ("bos_token", "eos_token")})
        assert template(golden["conversation"], None, True) == case["expected"], case["name"]


def chat_templates():
    folder = Path(__file__).resolve().parents[3].parent / "shared/data/chat_templates"
    return sorted(folder.glob("*.jinja")) or [
        pytest.param(None, marks=pytest.mark.skip("needs ../shared/data beside the checkout"))
    ]


@pytest.fixture(params=chat_templates(), ids=lambda path: path.stem if path else "none")
def template(request, tokenizers):
    """A template with a tokenizer that knows the chat template's tags, as that of its model does."""
    source = request.param.read_text(encoding="utf-8")
    tokenizer = copy.deepcopy(tokenizers["minimind-6400"])
    tokenizer.add_tokens(
        sorted(set(re.findall(r"<[|｜][^<>|｜'\"]+[|｜]>", source)) | {"<|user|>", "<|assistant|>"}), special_tokens=True
    )
    return Template(tokenizer=tokenizer, chat_template=source)


def renders(template, chat, tools=None, prompt=False):
    """What Transformers renders; None where the chat template refuses the chat."""
    try:
        return template.tokenizer.apply_chat_template(
            chat, tools=tools, chat_template=template.chat_template, tokenize=False, add_generation_prompt=prompt
        )
    except Exception:
        return None


def runs(template, feature):
    """For each run of labelled tokens its text, and that of all tokens before it."""
    ids, on = feature["input_ids"], feature["labels"] != -100
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    return [(template.decode(ids[start:end]), template.decode(ids[:start])) for start, end in edges.reshape(-1, 2)]


def test_labels_agree_with_rendering_the_chat_up_to_each_turn(request, template):
    """The reference: a turn lies between the prompt for it and the chat up to it, where both begin the whole chat."""
    compared = 0
    for name, chat in CHATS.items():
        text = renders(template, chat)
        if text is None:
            with pytest.raises(DataError, match="refused"):
                template.encode({"messages": chat})
            continue
        feature = template.encode({"messages": chat})
        assert template.decode(feature["input_ids"]) == unicodedata.normalize("NFC", text)
        found = runs(template, feature)
        turns = [place for place, message in enumerate(chat) if message["role"] == "assistant"]
        assert len(found) == len(turns), name
        for turn, (said, before) in zip(turns, found, strict=True):
            content = chat[turn]["content"].rpartition("</think>")[2].strip()
            assert content in said
            assert all(message["content"].strip() not in said for message in chat if message["role"] == "user")
            prompt, up_to = renders(template, chat[:turn], prompt=True), renders(template, chat[: turn + 1])
            if prompt and up_to and text.startswith(prompt) and text.startswith(up_to):
                compared += 1
                # A token may straddle the border ("\n" + "\n…"): it belongs to the prompt.
                assert before.startswith(prompt)
                assert not before[len(prompt) :].strip()
                rest = up_to[len(before) + len(said) :]
                assert rest.strip() in ("", template.tokenizer.eos_token)
                assert (before + said) == up_to[: len(before) + len(said)]
                assert not rest or said.rstrip() == said
    # In these no prompt begins a chat: they put other white space, or thoughts, into prompts than into turns.
    name = request.node.callspec.params["template"].stem
    assert compared >= 4 or name in WITHOUT_REFERENCE


def test_tool_calls_are_labelled_and_results_are_not(request, template):
    text = renders(template, TOOL_CHAT, TOOLS)
    row = {"messages": TOOL_CHAT, "tools": TOOLS}
    if text is None or "It is four." not in text or text.count("add") < 2:
        pytest.skip("this chat template has no tool calls")
    if (
        request.node.callspec.params["template"].stem == "deepseek-v3-tool"
    ):  # writes no header where the assistant goes on after a tool
        with pytest.raises(DataError, match="message 3 can't be located"):
            template.encode(row)
        return
    feature = template.encode(row)
    assert template.decode(feature["input_ids"]) == text
    found = [said for said, _ in runs(template, feature)]
    assert len(found) == 2
    assert "It is four." in found[1]
    assert "It is four." not in found[0]
    assert "What is" not in found[0]
