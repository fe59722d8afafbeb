"""What hubs answer when something is wrong, and what is made of it: the real clients against loopback servers."""

import threading
import time

import pytest

from twinkle_hub.errors import AccessDeniedError, HubBusyError, HubConnectionError, HubError, NotCachedError
from twinkle_hub.retries import Retries
from twinkle_hub.testing import Fault

FILES = {"config.json": b"{}", "weights/a.bin": b"a" * 5000}


@pytest.fixture
def hub(remote):
    remote.server.repositories.commit("acme/m", FILES)
    return remote.hub()


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestABusyHub:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_is_asked_again(self, remote, hub, status):
        remote.server.faults.append(Fault("api/", status=status, times=1))
        assert files_of(hub.download("acme/m")) == FILES

    def test_is_waited_for_as_long_as_it_asks(self, remote, hub, monkeypatch):
        waits = []
        monkeypatch.setattr("twinkle_hub.retries.time.sleep", waits.append)
        remote.server.faults.append(Fault("api/", status=429, headers={"Retry-After": "7"}, times=1))
        hub.resolve("acme/m")
        assert 7 in waits

    def test_that_asks_for_too_long_is_an_error_that_tells_how_long(self, remote, hub, message):
        remote.server.faults.append(Fault("api/", status=429, headers={"Retry-After": "3600"}))
        error = message(remote.hub(retries=Retries()).resolve, "acme/m", kind=HubBusyError)
        assert "429" in error
        assert "in 3600 seconds" in error

    def test_is_given_up_after_the_attempts(self, remote, hub, message):
        remote.server.faults.append(Fault("api/", status=429))
        message(hub.resolve, "acme/m", kind=HubBusyError)
        first_page = [request for request in remote.server.requests if request.path.startswith("/api")]
        assert len(first_page) == hub.retries.attempts


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_isnt_repeated_and_says_to_log_in(remote, hub, status, message):
    remote.server.faults.append(Fault("api/", status=status))
    assert "login" in message(hub.resolve, "acme/m", kind=HubError)
    assert len(remote.server.requests) == 1


class TestABrokenConnection:
    def test_in_the_middle_of_a_file_is_mended(self, remote, hub):
        remote.server.faults.append(Fault(r"a\.bin", cut_after=2000, times=2))
        assert files_of(hub.download("acme/m")) == FILES
        fetched = [request for request in remote.server.requests if "a.bin" in f"{request.path}{request.query}"]
        assert len([request for request in fetched if request.method == "GET"]) >= 2

    def test_that_never_heals_leaves_nothing_that_looks_whole(self, remote, hub, message, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
        remote.server.faults.append(Fault(r"a\.bin", cut_after=100))
        message(hub.download, "acme/m", kind=HubConnectionError)
        with pytest.raises(NotCachedError):
            hub.download("acme/m", offline=True)
        assert not [path for path in remote.cache.rglob("a.bin") if path.is_file()]

    def test_instead_of_an_answer_is_tried_again(self, remote, hub):
        remote.server.faults.append(Fault("api/", drop=True, times=1))
        assert files_of(hub.download("acme/m")) == FILES


def test_a_slow_connection_is_waited_for_and_nothing_is_whole_meanwhile(remote, hub):
    remote.server.faults.append(Fault(r"a\.bin", delay=0.05))
    done = []
    thread = threading.Thread(target=lambda: done.append(hub.download("acme/m")))
    thread.start()
    while not any("a.bin" in str((request.path, request.query)) and request.method == "GET" for request in remote.server.requests):
        time.sleep(0.005)
    with pytest.raises(NotCachedError):
        remote.hub().download("acme/m", offline=True)
    thread.join()
    assert files_of(done[0]) == FILES


class TestRedirects:
    """127.0.0.1 is the hub, localhost the other host: to a client they are two."""

    @pytest.fixture
    def other(self, remote):
        """Another host that serves large files by their SHA-256, without asking who wants them."""
        with type(remote.server)() as server:
            server.answer = lambda request: self.large(server, request)
            yield server

    @staticmethod
    def large(server, request):
        from twinkle_hub.testing.loopback import file_reply

        return file_reply(server.blobs[request.segments[-1]], request, {})

    @staticmethod
    def url(other):
        return other.endpoint.replace("127.0.0.1", "localhost") + "/{sha256}"

    @pytest.fixture
    def private(self, remote, other):
        import hashlib

        content = b"w" * 5000
        other.blobs[hashlib.sha256(content).hexdigest()] = content
        remote.server.redirects[".bin"] = self.url(other)
        remote.server.repositories.commit("acme/m", {"model.bin": content, "loss.py": b"code"}, private=True)

    def test_of_large_files_are_followed_without_the_token(self, remote, other, private):
        folder = remote.hub(token="sekret-a1b2c3").download("acme/m")
        assert (folder / "model.bin").read_bytes() == b"w" * 5000
        assert [request for request in other.requests if request.method == "GET"]
        assert not any("sekret" in str(request) for request in other.requests)

    def test_of_code_are_refused_before_it_is_fetched(self, remote, other, private, message):
        remote.server.redirects[".py"] = self.url(other)
        error = message(remote.hub(token="sekret-a1b2c3").download, "acme/m", allow_patterns=["*.py"])
        assert "sends to another host" in error
        assert "loss.py" in error
        assert other.requests == []

    def test_of_questions_never_carry_the_token(self, remote, other):
        remote.server.repositories.commit("acme/m", FILES, private=True)
        other.blobs["m"] = b"{}"
        place = self.url(other).format(sha256="m")
        remote.server.faults.append(Fault("api/", status=302, headers={"Location": place}))
        with pytest.raises(HubError):
            remote.hub(token="sekret-a1b2c3").resolve("acme/m")
        assert not any("sekret" in str(request) for request in other.requests)


def test_access_denied_is_told_from_not_there(remote, message):
    remote.server.repositories.commit("acme/private", FILES, private=True)
    kind = HubError if remote.hub().scheme == "hf" else AccessDeniedError  # Hugging Face tells strangers nothing
    assert "login" in message(remote.hub().resolve, "acme/private", kind=kind)


def test_what_isnt_a_hub_is_named_as_such(remote, hub, message):
    remote.server.faults.append(Fault("api/", body=b"<html>Welcome to our Wi-Fi</html>"))
    for call in (hub.resolve, hub.list_files, hub.download):
        assert "://acme/m" in message(call, "acme/m")
