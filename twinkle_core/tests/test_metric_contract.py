"""Measurements are numbers with units: formatted only when they are shown."""

import json
import pickle

import pytest

from twinkle.metric import Measurement, Measurements


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (2.34567, "nats", "2.346 nats"),
        (0.5, "%", "50.0 %"),
        (123456.0, "tokens/s", "123 ktokens/s"),
        (512.0, "tokens/s", "512 tokens/s"),
        (1e-4, "", "0.0001"),
        (12.0, "s", "12 s"),
    ],
)
def test_measurement_shows_value_and_unit(value: float, unit: str, shown: str):
    assert str(Measurement(value, unit)) == shown
    assert f"{Measurement(value, unit)}" == shown


def test_measurement_is_a_number_for_programs():
    half = Measurement(0.5, "s")
    assert half * 4 == 2.0
    assert json.loads(json.dumps(half)) == 0.5
    assert f"{half:.3f}" == "0.500"


def test_measurement_pickles_with_its_unit():
    again = pickle.loads(pickle.dumps(Measurement(3.0, "s")))
    assert (again, again.unit) == (3.0, "s")


def test_measurements_show_as_one_line():
    assert str(Measurements(loss=Measurement(1.0, "nats"), lr=Measurement(1e-4))) == "loss 1 nats, lr 0.0001"
