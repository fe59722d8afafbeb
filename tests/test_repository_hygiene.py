"""What must not be in the repository: traces of the machine it was written on, and files that are somebody else's.

The data beside the checkout (``../shared/data``) came from elsewhere and is for tests only; where it isn't there, those tests skip.
"""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ELSEWHERE = CHECKOUT.parent / "shared" / "data"
SELF_COGNITION = "plugins/twinkle-plugin-tiny/src/twinkle_plugin_tiny/data/self-cognition/self_cognition.jsonl"
# Written so that this file doesn't hold what it looks for.
TRACES = {
    "a folder of somebody's machine": r"/(?:ro{2}t|home/\w+|Users/\w+|wor{1}k/(?:main|shared))/",
    "a package registry": r"py{1}pi\.org|python{1}hosted|download\.py{1}torch\.org|(?:extra-)?index-{1}url",
    "an issue's number": r"(?i)\bissue{1}s? ?#?\d+|\bfixe{1}s #\d+",
}


def committed() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("needs a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := CHECKOUT / name).is_file()]


def text_of(path: Path) -> str | None:
    content = path.read_bytes()
    return None if b"\0" in content else content.decode("utf-8", errors="replace")


def elsewhere(name: str = "") -> Path:
    if not (ELSEWHERE / name).exists():
        pytest.skip(f"needs ../shared/data/{name}")
    return ELSEWHERE / name


@pytest.mark.parametrize("trace", TRACES)
def test_no_file_holds(trace: str):
    pattern = re.compile(TRACES[trace])
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()[:120]}"
        for path in committed()
        if path.name != "tokenizer.json" and (text := text_of(path)) is not None
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        ("a folder of somebody's machine", "/ro" + "ot/x"),
        ("a package registry", "--index-" + "url=x"),
        ("an issue's number", "see iss" + "ue 12"),
    ],
)
def test_this_search_finds_what_it_looks_for(trace: str, text: str):
    assert re.search(TRACES[trace], text)


def test_no_committed_file_is_a_copy_of_the_data_from_elsewhere():
    digests = {hashlib.sha256(path.read_bytes()).digest(): path for path in elsewhere().rglob("*") if path.is_file()}
    copies = [path for path in committed() if hashlib.sha256(path.read_bytes()).digest() in digests]
    assert copies == []


@pytest.mark.parametrize(("name", "answer"), [("self_cognition.jsonl", "response"), ("identity.json", "output")])
def test_no_answer_of_the_self_cognition_set_is_taken_from_another(name: str, answer: str):
    text = elsewhere(f"datasets/{name}").read_text(encoding="utf-8")
    theirs = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    ours = [json.loads(line) for line in (CHECKOUT / SELF_COGNITION).read_text(encoding="utf-8").splitlines()]
    assert {_plain(row[answer]) for row in theirs} & {_plain(row["response"]) for row in ours} == set()


def _plain(text: str) -> str:
    """Its letters alone, whatever the case and the punctuation."""
    return re.sub(r"\W+", "", text.casefold())
