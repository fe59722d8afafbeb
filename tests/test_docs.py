"""Every Python snippet in README, CONTRIBUTING, docs and cookbook pages runs.

A snippet marked ``python continues`` goes on where the one before it on the page ended; one marked ``python notest`` needs what a
test can't have.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md"), *CHECKOUT.glob("cookbook/**/*.md")])
SNIPPET = re.compile(r"^```python *(?P<mode>\w*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
MIRROR = (CHECKOUT / "cookbook" / "twinkle.toml").read_text()


def _programs(page: Path) -> list[str]:
    programs: list[str] = []
    for match in SNIPPET.finditer(page.read_text()):
        mode, code = match["mode"], match["code"]
        assert mode in ("", "continues", "notest"), f"{page.name}: unknown kind of snippet {mode!r}"
        if mode == "continues":
            programs[-1] += "\n" + code
        elif mode == "":
            programs.append(code)
    return programs


CASES = [
    pytest.param(program, id=f"{page.relative_to(CHECKOUT)}-{number}")
    for page in PAGES
    for number, program in enumerate(_programs(page), 1)
]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twinkle's folder for the snippets: they allow and pin things, which is nothing for the developer's own."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("program", CASES)
def test_snippet_runs(program: str, tmp_path: Path, home: Path):
    (tmp_path / "twinkle.toml").write_text(MIRROR)
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TWINKLE_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TWINKLE_HOME": str(home)}
    variables.pop("TWINKLE_TRUST_REMOTE_CODE", None)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program}\n\n{done.stdout}\n{done.stderr}"


LINK = re.compile(r"\]\((?!https?://|#)(?P<target>[^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_inside_the_project_lead_somewhere(page: Path):
    for match in LINK.finditer(page.read_text()):
        assert (page.parent / match["target"]).exists(), f"{page.name} links to {match['target']}, which isn't there"
