"""Errors derive from TwinkleError and the fitting built-in exception, show their message, and pickle."""

import inspect
import pickle

import pytest

from twinkle import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_error_is_a_twinkle_error_that_pickles_with_its_message(error: type[Exception]):
    made = error("The mesh has 3 ranks, not 4.")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert str(again) == str(made) == "The mesh has 3 ranks, not 4."
    assert isinstance(made, errors.TwinkleError)


@pytest.mark.parametrize("error", [row for row in CLASSES if row is not errors.TwinkleError], ids=lambda error: error.__name__)
def test_error_says_in_its_docstring_what_it_means(error: type[Exception]):
    assert inspect.getdoc(error)
