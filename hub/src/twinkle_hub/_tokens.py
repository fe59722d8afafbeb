"""Tokens that can't be sent are refused before a client gets them: transports quote a malformed header, and the token with it."""

from __future__ import annotations

import re

from twinkle_hub.errors import AccessDeniedError

_SENDABLE = re.compile(r"[!-~]*")  # RFC 6750, section 2.1 allows less; printable ASCII is what a header can carry


def check_sendable(token: str | bool | None, login: str) -> None:
    """Check that ``token``, where it is one, can be in a header; ``login`` is the command that gets another.

    Raises:
        AccessDeniedError: it can't. The message doesn't hold it.
    """
    if isinstance(token, str) and not _SENDABLE.fullmatch(token):
        raise AccessDeniedError(
            f"The token can't be sent: it holds blanks, line ends or letters beyond ASCII. Log in again: {login}"
        )
