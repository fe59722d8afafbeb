"""get_logger: one line for each record, from one rank, without secrets."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from twinkle import get_logger
from twinkle.logger import redact

SCRIPT = """
import logging
from twinkle import get_logger
logger = get_logger()
assert get_logger() is logger and get_logger('twinkle.model').parent is logger
assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING
logger.info('hello %s', 'world')
logger.debug('too quiet')
get_logger('twinkle.model').warning('from a child')
get_logger('somebody').info('from elsewhere')
try:
    raise ValueError('token hf_abcdefghijklmnopqrstuvwxyz')
except ValueError:
    logger.exception('it failed')
"""


def run(script, **environ):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PATH": "", **environ})
    assert done.stdout == ""
    return done.stderr


@pytest.fixture
def records(monkeypatch):
    """The lines that an application's own handler on the root logger shows."""
    monkeypatch.delenv("TWINKLE_LOG_ALL_RANKS", raising=False)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


def test_each_record_is_shown_once_and_the_root_logger_is_left_alone():
    lines = run(SCRIPT)
    for text in ("INFO twinkle: hello world", "WARNING twinkle.model: from a child", "INFO somebody: from elsewhere"):
        assert lines.count(text) == 1
    assert "too quiet" not in lines


def test_tokens_are_blotted_out_of_tracebacks_too():
    lines = run(SCRIPT)
    assert "ValueError: token ***" in lines
    assert "hf_abc" not in lines


def test_other_ranks_are_silent():
    assert run(SCRIPT, RANK="1", WORLD_SIZE="2") == ""


def test_all_ranks_write_where_that_is_asked_for():
    assert "[rank 1] " in run(SCRIPT, RANK="1", WORLD_SIZE="2", TWINKLE_LOG_ALL_RANKS="1")


def test_saying_no_to_all_ranks_means_no():
    assert run(SCRIPT, RANK="1", WORLD_SIZE="2", TWINKLE_LOG_ALL_RANKS="0") == ""


def test_a_broken_environment_keeps_nobody_from_logging():
    assert "hello world" in run(SCRIPT, WORLD_SIZE="many")


def test_the_level_can_be_chosen():
    assert "too quiet" in run(SCRIPT, TWINKLE_LOG_LEVEL="debug")


def test_a_level_that_there_is_not_is_named():
    code = "from twinkle import get_logger\nfrom twinkle.errors import ConfigError\ntry: get_logger()\n"
    code += "except ConfigError as error: import sys; sys.stderr.write(str(error))"
    assert "TWINKLE_LOG_LEVEL='loud' is no level. Levels: CRITICAL" in run(code, TWINKLE_LOG_LEVEL="loud")


def test_a_message_whose_arguments_do_not_fit_is_shown_and_ends_nothing(records):
    get_logger("twinkle.test").warning("only %d", "hf_abcdefghijklmnopqrstuvwxyz")
    assert records.getvalue() == "only %d (its arguments don't fit it: ('***',))\n"


def test_where_the_application_has_handlers_they_show_our_records_and_ours_do_not(records, capsys):
    get_logger("twinkle.test").warning("seen once")
    assert records.getvalue() == "seen once\n"
    assert capsys.readouterr().err == ""


def test_the_applications_handlers_see_no_secrets_either(records):
    try:
        raise ValueError("Bearer abc.def")
    except ValueError:
        get_logger("twinkle.test").exception("with %s", "tml-secret-key-123")
    assert "***" in records.getvalue()
    assert "abc.def" not in records.getvalue()
    assert "tml-secret" not in records.getvalue()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("token=hf_AbCdEfGhIjKlMnOpQrStUv.", "token=***."),
        ("ms-01234567-89ab-cdef-0123-456789abcdef", "***"),
        ("Authorization: Bearer eyJ0.abc-_x", "Authorization: Bearer ***"),
        ("{'authorization': 'bearer abc'}", "{'authorization': 'bearer ***'}"),
        ("api key tml-abcDEF_123-x", "api key ***"),
        ("https://me:geheim@hub.example/a", "https://me:***@hub.example/a"),
        (
            "hf_hub hf_token ms-swift tml-lib ms://acme/name@main http://host:80/a@b",
            "hf_hub hf_token ms-swift tml-lib ms://acme/name@main http://host:80/a@b",
        ),
    ],
)
def test_secrets_go_and_everything_else_stays(text, clean):
    assert redact(text) == clean
