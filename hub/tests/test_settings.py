"""What the environment says."""

from pathlib import Path

import pytest

from twinkle_hub.settings import Settings, is_set


@pytest.mark.parametrize("value", [None, "", " ", "0", "false", "False", "no", "NO", "off", " 0 "])
def test_these_values_mean_no(value):
    assert is_set(value) is False


@pytest.mark.parametrize("value", ["1", "true", "yes", "on", "True", "anything"])
def test_these_values_mean_yes(value):
    assert is_set(value) is True


def test_an_empty_environment_gives_the_defaults():
    assert Settings.from_environment({}) == Settings(home=Path.home() / ".cache/twinkle", offline=False)


def test_the_home_is_absolute_and_may_begin_with_a_tilde():
    assert Settings.from_environment({"TWINKLE_HOME": "~/tw"}).home == Path.home() / "tw"
    assert Settings.from_environment({"TWINKLE_HOME": "tw"}).home == Path.cwd() / "tw"


@pytest.mark.parametrize("name", ["TWINKLE_OFFLINE", "HF_HUB_OFFLINE"])
def test_either_variable_says_offline(name):
    assert Settings.from_environment({name: "1"}).offline
    assert not Settings.from_environment({name: "0"}).offline


def test_only_what_is_locked_may_be_used_where_the_environment_says_so():
    assert Settings.from_environment({"TWINKLE_LOCKED": "1"}).locked
    assert not Settings.from_environment({"TWINKLE_LOCKED": "false"}).locked
    assert not Settings.from_environment({}).locked


def test_the_environment_of_the_process_is_read_when_asked(monkeypatch):
    monkeypatch.setenv("TWINKLE_OFFLINE", "yes")
    assert Settings.from_environment().offline
