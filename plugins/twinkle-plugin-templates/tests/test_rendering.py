"""Chat templates render as Transformers renders them, inside the same sandbox."""

import pytest

from twinkle.errors import DataError
from twinkle_plugin_templates.rendering import ChatTemplate

CHAT = [{"role": "user", "content": "<b>é</b>", "name": None}, {"role": "assistant", "content": "x"}]

SOURCES = [
    "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ messages[0] | tojson(ensure_ascii=True, separators=(',', ':')) }}",
    "{{ strftime_now('%Y') }}{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}{{ x is defined }}",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}"
    "{{ m.items() | list }}{{ m.missing is defined }}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for m in messages %}{% set ns.found = true %}{% endfor %}"
    "{{ ns.found }}{{ messages[0].get('name') }}",
    "{{ messages[0].content.upper().__class__ }}{{ messages[0].__class__ }}",
    "{% macro say(m) %}{{ m['content'] }}{% endmacro %}{{ say(messages[0]) }}"
    "{% generation %}{{ messages[1].content }}{% endgeneration %}",
]


@pytest.mark.parametrize("source", SOURCES)
def test_renders_what_apply_chat_template_renders(tokenizer, source):
    template = ChatTemplate(source, tokenizer.special_tokens_map)
    expected = tokenizer.apply_chat_template(CHAT, chat_template=source, tokenize=False)
    assert template(CHAT) == expected
    assert template.with_spans(CHAT)[0] == expected


CALL = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}]


def test_a_tool_call_without_content_has_empty_text_where_the_template_needs_text():
    template = ChatTemplate("{% for m in messages %}[{{ m.content + '|' }}{{ m.tool_calls is defined }}]{% endfor %}", {})
    assert template(CALL) == "[x|False][|True]"
    assert CALL[1]["content"] is None


def test_a_template_that_knows_of_messages_without_content_sees_that_there_is_none():
    template = ChatTemplate("{% for m in messages %}[{{ m.content is none }}]{% endfor %}", {})
    assert template(CALL) == "[False][True]"


def test_a_template_that_refuses_a_tool_call_in_any_case_says_why_in_its_own_words():
    template = ChatTemplate("{{ raise_exception('no tools here') }}", {})
    with pytest.raises(DataError, match="refused it: TemplateError: no tools here"):
        template(CALL)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__['x'] }}",
        "{{ messages | attr('__class__') | attr('__mro__') }}{{ cycler.__init__.__globals__.os }}",
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_the_sandbox_holds_at_the_first_time_and_the_second(source, times):
    template = ChatTemplate(source, {})
    chat = [{"role": "user", "content": "x"}]
    for _ in range(times):
        with pytest.raises(DataError, match="refused"):
            template(chat)
    assert chat == [{"role": "user", "content": "x"}]


def test_generation_blocks_say_where_they_came_to_lie():
    source = "{% for m in messages %}[{% generation %}{{ m.content }}{% endgeneration %}]{% endfor %}"
    text, spans = ChatTemplate(source, {}).with_spans([{"content": "one"}, {"content": ""}, {"content": "three"}])
    assert text == "[one][][three]"
    assert [text[start:end] for start, end in spans] == ["one", "", "three"]


def test_text_that_holds_the_marks_is_refused_rather_than_misread():
    template = ChatTemplate("{% generation %}{{ messages[0].content }}{% endgeneration %}", {})
    with pytest.raises(DataError, match=r"U\+FDD0"):
        template.with_spans([{"content": "a\ufdd0b"}])
