"""A server on 127.0.0.1 for tests: a free port, a log of requests, and faults on demand.

Each server is an object and a context manager, so tests can run in parallel. Knows nothing of any hub's protocol.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from twinkle_hub.testing.repositories import Repositories, Repository


@dataclass(frozen=True)
class Request:
    """A request as it came: ``path`` percent-encoded and without the query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def segments(self) -> list[str]:
        """The parts of the path, decoded: a branch ``a/b`` that was sent as ``a%2Fb`` is one part."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    @property
    def token(self) -> str | None:
        """The bearer token that was sent."""
        return self.headers.get("Authorization", "").partition("Bearer ")[2] or None

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """An answer; ``headers`` are added to the length."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Fault:
    """What goes wrong for requests whose path and query match ``pattern`` (``re.search``), ``times`` times.

    Attributes:
        status: answer with this status instead, and do nothing.
        headers: send these, too (``Retry-After``, ``Location``).
        cut_after: send this many bytes of the body and close the connection.
        body: answer with these bytes in place of the right ones.
        delay: send the body in pieces of 1000 bytes, this many seconds apart.
        drop: do what was asked, and close the connection in place of the answer.
    """

    pattern: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    body: bytes | None = None
    delay: float = 0.0
    drop: bool = False
    times: int = sys.maxsize


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply with ``value`` as JSON."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def file_reply(content: bytes, request: Request, headers: Mapping[str, str]) -> Reply:
    """A reply with a file, or with the part of it that a ``Range: bytes=N-[M]`` header asks for."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if asked is None:
        return Reply(200, content, headers)
    start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    if start > end:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
    return Reply(206, content[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"})


class LoopbackServer(ABC):
    """Serves ``repositories`` while its ``with`` block runs.

    Args:
        token: who sends it may read private repositories.

    Attributes:
        repositories: what is served; tests add to it.
        requests: every request, in the order of arrival.
        faults: what should go wrong; the first that matches a request is used.
        blobs: large files that were sent, by their SHA-256; a commit takes them from here.
    """

    default_branch = "main"

    def __init__(self, *, token: str | None = None) -> None:
        self.repositories = Repositories(self.default_branch)
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.blobs: dict[str, bytes] = {}
        self._token = token
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def endpoint(self) -> str:
        """The URL to give to a client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """The right answer to ``request``; subclasses speak their protocol here."""

    def may_read(self, repository: Repository, request: Request) -> bool:
        """Whether the sender of ``request`` may read ``repository``."""
        return not repository.private or (self._token is not None and request.token == self._token)

    def may_write(self, request: Request) -> bool:
        """Whether the sender of ``request`` may create and change repositories."""
        return self._token is not None and request.token == self._token

    def fault_for(self, request: Request) -> Fault | None:
        """The fault that hits this request, if any; it has one time less to go then."""
        target = f"{request.path}?{'&'.join(f'{key}={value}' for key, value in request.query.items())}"
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, target):
                fault.times -= 1
                return fault
        return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    owner: LoopbackServer
    daemon_threads = False  # so that server_close() waits for them, and no socket outlives its test

    def __init__(self, *args: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for connection in list(self._connections):  # clients keep theirs open, and a thread waits on each
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it is closed already
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that hangs up is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: ``LoopbackServer.requests`` is the log."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.title(): value for key, value in self.headers.items()}
        request = Request(self.command, url.path, dict(parse_qsl(url.query)), headers, body)
        owner = self.server.owner
        owner.requests.append(request)
        fault = owner.fault_for(request) or Fault("")
        if fault.status is not None:
            reply = json_reply({"error": "as the test asked"}, fault.status, fault.headers)
        else:
            reply = owner.answer(request)
        if fault.body is not None:
            reply = Reply(reply.status, fault.body, reply.headers)
        if fault.drop:
            self.close_connection = True
            return
        self._send(reply, fault)

    def _send(self, reply: Reply, fault: Fault) -> None:
        self.send_response(reply.status)
        for key, value in reply.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = reply.body if fault.cut_after is None else reply.body[: fault.cut_after]
        for start in range(0, len(body), 1000 if fault.delay else max(1, len(body))):
            self.wfile.write(body[start : start + 1000] if fault.delay else body)
            time.sleep(fault.delay)
        if fault.cut_after is not None:
            self.wfile.flush()
            self.close_connection = True

    def do_GET(self) -> None:
        """Answer a GET."""
        self._serve()

    def do_HEAD(self) -> None:
        """Answer a HEAD: as a GET, without the body."""
        self._serve()

    def do_POST(self) -> None:
        """Answer a POST."""
        self._serve()

    def do_PUT(self) -> None:
        """Answer a PUT."""
        self._serve()
