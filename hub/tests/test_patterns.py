"""Which files are asked for."""

import pytest

from twinkle_hub.patterns import matching

FILES = ["config.json", "model.safetensors", "onnx/model.onnx", "onnx/config.json"]


@pytest.mark.parametrize(
    ("allow", "ignore", "expected"),
    [
        (None, None, FILES),
        ([], None, []),
        (["*.json"], None, ["config.json", "onnx/config.json"]),
        (["config.json"], None, ["config.json"]),
        (["onnx/"], None, ["onnx/model.onnx", "onnx/config.json"]),
        (None, ["onnx/*"], ["config.json", "model.safetensors"]),
        (["*.json"], ["onnx/"], ["config.json"]),
        (["*.JSON"], None, []),
    ],
)
def test_allowed_and_not_ignored(allow, ignore, expected):
    assert matching(FILES, allow, ignore) == expected
