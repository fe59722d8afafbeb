"""The errors of hubs."""

import pickle

import pytest

from twinkle_hub import errors

ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.HubError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_pickles(kind):
    copy = pickle.loads(pickle.dumps(kind("hf://a/b: no")))
    assert type(copy) is kind
    assert str(copy) == "hf://a/b: no"


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_an_oserror_and_one_of_twinkles(kind):
    assert issubclass(kind, OSError)
    assert issubclass(kind, errors.TwinkleError)
