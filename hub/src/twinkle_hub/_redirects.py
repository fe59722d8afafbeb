"""Where files come from: code is taken from the hub itself, never from where it sends to.

Large files usually come from other hosts (content delivery); what is executed, and what says what is executed, doesn't.
Knows nothing of any hub's protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin, urlsplit

from twinkle_hub.errors import HubError
from twinkle_hub.repository import RepoRef

_CODE = (".py", ".toml")  # what is executed, and what says what is executed
_AT_ONCE = 8  # requests


def refuse_redirected_code(reference: RepoRef, endpoint: str, paths: Iterable[str], location: Callable[[str], str | None]) -> None:
    """Check that the hub at ``endpoint`` itself serves those of ``paths`` that are code.

    Args:
        location: the URL that the hub gives for a path; ``None`` where it serves it itself.

    Raises:
        HubError: it sends to another host for one of them.
    """

    def check(path: str) -> None:
        host = urlsplit(urljoin(endpoint, location(path) or endpoint)).netloc
        if host != urlsplit(endpoint).netloc:
            raise HubError(
                f"{reference}: the hub sends to another host, {host}, for {path}. Code is taken from the hub itself only: "
                f"don't use this repository, or ask its owner."
            )

    code = [path for path in paths if path.endswith(_CODE)]
    if code:
        with ThreadPoolExecutor(min(_AT_ONCE, len(code))) as pool:
            list(pool.map(check, code))
