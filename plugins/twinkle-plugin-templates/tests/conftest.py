"""A small byte-level BPE tokenizer, trained here; chat templates of the usual shapes; the folder ``shared`` beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]
PLAIN = ["<think>", "</think>", "<tool_call>"]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
# As Qwen3's: thoughts stay in a last answer alone, which gets empty ones where it has none.
THINKING = (
    "{%- if tools %}{{- '<|im_start|>system\\nTools: ' }}"
    "{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- set content = message.content if message.content is string else '' %}"
    "{%- if message.role == 'assistant' %}"
    "{%- set thoughts = content.split('</think>')[0].split('<think>')[-1].strip('\\n') if '</think>' in content else '' %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if loop.last %}{{- '<think>\\n' + thoughts + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- content }}"
    "{%- for call in message.tool_calls %}{{- '<tool_call>' + (call.function | tojson) }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
# As Llama 2's: no generation prompt, contents trimmed, roles have to take turns.
INST = (
    "{%- for message in messages %}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Roles must alternate user/assistant') }}{%- endif %}"
    "{%- if message.role == 'user' %}{{- '[INST] ' + message.content | trim + ' [/INST]' }}"
    "{%- else %}{{- ' ' + message.content | trim + ' ' + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
# As GLM's: a turn ends where the next one begins.
OPEN_ENDED = (
    "{%- for message in messages %}{{- '<|' + message.role + '|>\\n' + message.content.split('</think>')[-1] }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"
)
GENERATION = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}{%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}"
    "{%- else %}{{- message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

CORPUS = [
    "Who are you? I am an assistant, and I'm here to answer what people ask of me. What is 2 + 2? It is 4.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 2))\n\n",
    "你是谁？我是一个助手。今天天气很好，我们去公园散步吧。 Où êtes-vous ? Ich weiß es nicht. Это не так.",
    "system user assistant tool the then that there they them their these those",
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a tokenizer, its chat template CHATML."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in PLAIN])
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path):
    """That tokenizer, loaded."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="session", params=["chatml", "thinking", "inst", "open_ended", "generation"])
def any_chat_template(request: pytest.FixtureRequest) -> str:
    return {"chatml": CHATML, "thinking": THINKING, "inst": INST, "open_ended": OPEN_ENDED, "generation": GENERATION}[request.param]


@pytest.fixture(scope="session")
def thinking() -> str:
    return THINKING


@pytest.fixture(scope="session")
def inst() -> str:
    return INST


@pytest.fixture(scope="session")
def open_ended() -> str:
    return OPEN_ENDED


@pytest.fixture(scope="session")
def generation() -> str:
    return GENERATION


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of tokenizers, templates and models that came from elsewhere; it isn't part of the project."""
    folder = Path(__file__).resolve().parents[3].parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs ../shared/data beside the checkout")
    return folder
