"""Manifests: what is valid, and that every error names file, line and key."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_registry.errors import ManifestError
from twinkle_registry.manifest import MAX_BYTES, load_manifest, parse_manifest

VALID = """\
schema = 1
[plugin]
name = "acme-focal"
version = "1.2.0"
api = ">=1,<2"
requires = ["torch>=2.6"]
license = "Apache-2.0"
summary = "Focal loss for imbalanced SFT data"
hooks = { module = "hooks", names = ["twinkle_register_hub"] }

[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
pure = true
config.gamma = { type = "float", default = 2.0, min = 0, doc = "focusing strength" }

[[component]]
kind = "metric"
name = "Recall"
entry = ":Recall"
"""


def errors_of(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text.encode(), "acme/twinkle.toml")
    return str(caught.value).splitlines()


def test_a_valid_manifest_is_read(tmp_path: Path):
    file = tmp_path / "twinkle.toml"
    file.write_text(VALID)
    manifest = load_manifest(file)
    assert manifest.plugin.name == "acme-focal"
    assert manifest.plugin.hooks is not None
    assert manifest.plugin.hooks.names == ["twinkle_register_hub"]
    assert [(row.kind, row.name, row.entry, row.pure) for row in manifest.component] == [
        ("loss", "FocalLoss", "loss:FocalLoss", True),
        ("metric", "Recall", ":Recall", False),
    ]
    assert manifest.component[0].config["gamma"].as_data() == {
        "type": "float",
        "default": 2.0,
        "min": 0,
        "doc": "focusing strength",
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "schema = 1",
            "schema = 1\ncolour = 1",
            "acme/twinkle.toml:2: colour: unknown key. Known here: schema, plugin, component.",
        ),
        ('license = "', 'licence = "', "acme/twinkle.toml:7: plugin.licence: unknown key. Did you mean 'license'?"),
        ("pure = true", "pur = true", "acme/twinkle.toml:15: component[0].pur: unknown key. Did you mean 'pure'?"),
        ("min = 0", "minimum = 0", "acme/twinkle.toml:16: component[0].config.gamma.minimum: unknown key."),
        (
            'names = ["twinkle',
            'nams = [], names = ["twinkle',
            "acme/twinkle.toml:9: plugin.hooks.nams: unknown key. Did you mean 'names'?",
        ),
        ('version = "1.2.0"\n', "", "acme/twinkle.toml:2: plugin.version: is missing."),
        ('entry = ":Recall"\n', "", "acme/twinkle.toml:18: component[1].entry: is missing."),
        ('"1.2.0"', '"one"', "acme/twinkle.toml:4: plugin.version: 'one' is no version"),
        ('"1.2.0"', "1.2", "acme/twinkle.toml:4: plugin.version: input should be a valid string, and this is 1.2."),
        ('">=1,<2"', '"1-2"', "acme/twinkle.toml:5: plugin.api: '1-2' is no range of versions"),
        ('"torch>=2.6"', '"torch >= "', "acme/twinkle.toml:6: plugin.requires[0]: 'torch >= ' is no requirement"),
        ('"loss:FocalLoss"', '"loss.FocalLoss"', "acme/twinkle.toml:14: component[0].entry: 'loss.FocalLoss' is no entry; write"),
        ('"loss:FocalLoss"', '"../loss:Focal"', "acme/twinkle.toml:14: component[0].entry: '../loss:Focal' is no entry"),
        ('kind = "metric"', 'kind = "Metric"', "acme/twinkle.toml:19: component[1].kind: 'Metric' is no kind"),
        ('"twinkle_register_hub"', '"register_hub"', "acme/twinkle.toml:9: plugin.hooks.names[0]: 'register_hub' is no hook"),
        ('type = "float"', 'type = "double"', "acme/twinkle.toml:16: component[0].config.gamma.type: input should be 'str', 'int'"),
        (
            "default = 2.0",
            "default = -1.0",
            "acme/twinkle.toml:16: component[0].config.gamma: the default -1.0 doesn't fit: it has to be at",
        ),
        (
            "default = 2.0",
            'default = "2"',
            "acme/twinkle.toml:16: component[0].config.gamma: the default '2' doesn't fit: it has to be of",
        ),
        ("min = 0", "min = 2, max = 1", "acme/twinkle.toml:16: component[0].config.gamma: min (2) is above max (1)."),
        ("min = 0", 'choices = [2.0, "a"]', "acme/twinkle.toml:16: component[0].config.gamma: the choice 'a' doesn't fit"),
        (
            'type = "float", default = 2.0',
            'type = "str"',
            "acme/twinkle.toml:16: component[0].config.gamma: 'min' and 'max' are for",
        ),
        (
            "schema = 1",
            "schema = 2",
            "acme/twinkle.toml:1: schema: 2 is newer than this twinkle-registry reads (1). Upgrade it: pip",
        ),
        ("schema = 1", "schema = true", "acme/twinkle.toml:1: schema: input should be a valid integer, and this is True."),
        ("pure = true", 'pure = "yes"', "acme/twinkle.toml:15: component[0].pure: input should be a valid boolean"),
        ("min = 0", 'min = "a"', "acme/twinkle.toml:16: component[0].config.gamma.min: has to be a number, and this is 'a'."),
        ("min = 0", "max = true", "acme/twinkle.toml:16: component[0].config.gamma.max: has to be a number, and this is True."),
        ("config.gamma = {", "config.a-b = {", "acme/twinkle.toml:16: component[0].config.a-b: 'a-b' is no identifier"),
        ("config.gamma = {", "config = 1 #", "acme/twinkle.toml:16: component[0].config: has to be a table, and this is 1."),
        ("hooks = {", "hooks = 1 #", "acme/twinkle.toml:9: plugin.hooks: has to be a table, and this is 1."),
        ("pure = true", "pure = ", "acme/twinkle.toml:15: isn't valid TOML"),
    ],
)
def test_an_error_names_file_line_and_key(old: str, new: str, expected: str):
    assert VALID.count(old) >= 1
    (error,) = errors_of(VALID.replace(old, new, 1))
    assert error.startswith(expected)


def test_all_errors_are_named_at_once():
    text = VALID.replace("pure = true", "pur = true").replace('"1.2.0"', '"one"')
    assert [error.split(": ")[0] for error in errors_of(text)] == ["acme/twinkle.toml:4", "acme/twinkle.toml:15"]


def test_two_components_of_one_kind_and_name_are_an_error():
    (error,) = errors_of(VALID.replace('"metric"', '"loss"').replace('"Recall"', '"FocalLoss"'))
    assert error == "acme/twinkle.toml:20: component[1].name: there are two loss components named 'FocalLoss'."


def test_components_of_different_kinds_may_share_a_name():
    assert len(parse_manifest(VALID.replace('"Recall"', '"FocalLoss"').encode(), "x").component) == 2


def test_text_that_is_not_utf8_is_an_error_with_its_line():
    with pytest.raises(ManifestError, match=r"x:2: isn't UTF-8"):
        parse_manifest(b"schema = 1\nname = '\xff'\n", "x")


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"twinkle\.toml: can't be read: No such file"):
        load_manifest(tmp_path / "twinkle.toml")


def test_windows_line_ends_are_read_and_counted():
    text = VALID.replace("pure = true", "pur = true").replace("\n", "\r\n")
    assert errors_of(text)[0].startswith("acme/twinkle.toml:15: component[0].pur")


_LINES = [place for place, line in enumerate(VALID.splitlines()) if " = " in line]
_VALUES = [
    "1",
    "-1.5",
    "nan",
    "true",
    '""',
    '"a:b"',
    "[]",
    "[[1]]",
    "{}",
    "{ a = {} }",
    "1979-05-27",
    '"\\u0000"',
    "{ type = 1 }",
    '["",1]',
]


@given(st.sampled_from(_LINES), st.sampled_from(_VALUES))
def test_with_any_other_value_it_is_valid_or_the_error_names_that_line(place: int, value: str):
    lines = VALID.splitlines()
    lines[place] = f"{lines[place].split(' = ')[0]} = {value}"
    message = ""
    try:
        parse_manifest("\n".join(lines).encode(), "x")
    except ManifestError as error:
        message = str(error)
    assert {int(part.split(":")[1]) for part in message.splitlines()} <= {place + 1}


@pytest.mark.parametrize("content", [b"a = " + b"[" * 100_000, b"a = " + b"9" * 10_000])
def test_what_would_break_the_parser_is_an_error_of_the_file(content: bytes):
    with pytest.raises(ManifestError, match=r"^x:1: isn't valid TOML"):
        parse_manifest(content, "x")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_a_file_holds_the_error_is_one_of_manifests(content: bytes):
    with pytest.raises(ManifestError, match=r"^x:\d+: "):
        parse_manifest(content, "x")


HEAD = b'schema = 1\n[plugin]\nname = "a"\nversion = "1"\napi = ">=1"\n'


@pytest.mark.parametrize(
    "rest",
    [
        b"".join(b"k%d = 1\n" % number for number in range(10_000)),
        b"".join(b'[[component]]\nkind = "X"\n' for _ in range(3_000)),
        b"a" + b".a" * 50_000 + b" = 1\n",
        b"[a" + b".a" * 50_000 + b"]\n",
        b"".join(b"k%d" % number + b".a" * 490 + b" = 1\n" for number in range(250)),
        b'requires = ["a; ' + b"(" * 5_000 + b'"]\n',
        b"#" * (MAX_BYTES + 1),
    ],
    ids=["many keys", "many rows", "deep key", "deep table", "many deep keys", "deep requirement", "large"],
)
def test_a_hostile_manifest_is_refused_soon_and_in_few_words(rest: bytes):
    begun = time.process_time()
    with pytest.raises(ManifestError) as caught:
        parse_manifest(HEAD + rest, "there")
    assert time.process_time() - begun < 10
    assert len(str(caught.value)) < 30_000


def test_an_error_does_not_repeat_control_characters():
    with pytest.raises(ManifestError, match="unknown key") as caught:
        parse_manifest(HEAD + b'"\\u001b[2Jevil" = 1\n', "there")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", ["a @ https://there/$(id)", "a @ file:///tmp/a", "a; python_version < '\\u001b[2J'"])
def test_a_requirement_names_no_address_and_hides_nothing(text: str):
    with pytest.raises(ManifestError, match=r"requires\[0\]: .*like 'torch>=2.6'"):
        parse_manifest(HEAD + f'requires = ["{text}"]\n'.encode(), "there")
