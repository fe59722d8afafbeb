"""References: what can be written, and what can't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_registry.errors import ReferenceFormatError
from twinkle_registry.reference import HubReference, InstalledReference, parse_reference

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GRPOLoss", InstalledReference("GRPOLoss")),
        ("twinkle-plugin-losses/GRPOLoss", InstalledReference("GRPOLoss", "twinkle-plugin-losses")),
        ("hf://acme/focal", HubReference("hf", "acme/focal")),
        ("ms://acme/focal/FocalLoss", HubReference("ms", "acme/focal", "FocalLoss")),
        ("ms://acme/focal@v1.2", HubReference("ms", "acme/focal", None, "v1.2")),
        ("hf://acme/focal/FocalLoss@feature/x", HubReference("hf", "acme/focal", "FocalLoss", "feature/x")),
        (f"hf://acme/focal@main#sha256:{DIGEST}", HubReference("hf", "acme/focal", None, "main", DIGEST)),
        (f"hf://acme/focal/Loss#sha256:{DIGEST}", HubReference("hf", "acme/focal", "Loss", None, DIGEST)),
        ("file:///srv/me@work/focal", HubReference("file", "/srv/me@work/focal")),
        ("file:///srv/me@work/focal@main", HubReference("file", "/srv/me@work/focal", None, "main")),
        ("file://./focal", HubReference("file", "./focal")),
        ("tiny://models/a-1.5B", HubReference("tiny", "models/a-1.5B")),
    ],
)
def test_each_form_is_read(text: str, expected: object):
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the component's name is missing"),
        ("losses/", "the component's name is missing"),
        ("a/b/C", "'a/b' is no distribution's name"),
        ("../C", "'..' is no distribution's name"),
        ("GRPO Loss", "'GRPO Loss' is no component's name"),
        ("hf://acme", "'acme' isn't 'owner/name' or 'owner/name/Component'"),
        ("hf://acme/focal/Loss/x", "isn't 'owner/name' or 'owner/name/Component'"),
        ("hf://acme/focal/my-loss", "'my-loss' is no component's name"),
        ("hf://acme/..", "isn't of the form owner/name"),
        ("hf://acme/focal ", "ends with white space"),
        ("hf://acme/focal@v1\n", "ends with white space"),
        ("hf://acme/focal@", "can't be the name of a branch"),
        ("hf://acme/focal@../x", "can't be the name of a branch"),
        ("hf://acme/focal#sha256:12", "'#sha256:12' is no digest"),
        (f"hf://acme/focal#md5:{DIGEST}", "is no digest"),
        (f"hf://acme/focal#sha256:{DIGEST.upper()}", "is no digest"),
        ("h f://acme/focal", "'h f' is no scheme"),
        ("file://focal", "a file reference has three slashes"),
        ("file://", "it holds no path"),
    ],
)
def test_what_can_not_be_read_says_why(text: str, cause: str):
    with pytest.raises(ReferenceFormatError) as caught:
        parse_reference(text)
    assert cause in str(caught.value)
    assert repr(text) in str(caught.value)


_segments = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,8}", fullmatch=True)
_identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
_revisions = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,5}(/[A-Za-z0-9]{1,5})?", fullmatch=True)
_digests = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(
    st.builds(
        HubReference,
        st.sampled_from(["hf", "ms", "tiny"]),
        st.tuples(_segments, _segments).map("/".join),
        st.none() | _identifiers,
        st.none() | _revisions,
        st.none() | _digests,
    )
    | st.builds(InstalledReference, _identifiers, st.none() | st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True))
)
def test_what_is_written_is_read_again(reference: HubReference | InstalledReference):
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=40) | st.text("abc/:@#.-_~ \n", max_size=30).map("hf://".__add__))
def test_a_reference_is_read_or_refused_and_nothing_else(text: str):
    try:
        reference = parse_reference(text)
    except ReferenceFormatError:
        return
    assert parse_reference(str(reference)) == reference
