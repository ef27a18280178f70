"""Registries over HTTP: what a good one answers, and all the ways in which a bad one may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pytest

from device_client.adapters import http_source, wire
from device_client.adapters.http_source import HttpSource
from device_client.ports import Question
from protocol.bundle import MAX_BUNDLE_BYTES
from protocol.digests import leaf_hash, sha256
from protocol.errors import FirmledgerError, Misuse, Refused, Unreachable
from protocol.ids import Version
from tests.device_client import registry as world
from tests.device_client.http_registry import Odd, serving

QUESTION = Question(world.PRODUCT, world.KeyIdentity().device_id, Version(0), 0, 2)
IMAGE = world.image_of("1.0.0", 700_000)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts registries with one release; the last one's world is ``serve.registry``."""
    with ExitStack() as stack:

        def start(odd: Odd = lambda handler: False) -> str:
            chain = world.Chain()
            chain.publish(MADE)
            return stack.enter_context(serving(world.Registry(chain), odd))

        yield start


MADE = world.make(IMAGE, "1.0.0")
DIGEST = sha256(MADE.payload)


def fetched(source: HttpSource, offset: int = 0) -> bytes:
    return b"".join(source.payload(DIGEST, offset, len(MADE.payload)))


def plain(status: int, body: bytes = b"", length: int | None = None, **headers: str) -> Odd:
    """A registry that answers everything the same."""

    def odd(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True
        return True

    return odd


def test_polls_downloads_and_delivers(serve: Callable[..., str]) -> None:
    source = HttpSource([serve()])
    first = source.poll(QUESTION, MAX_BUNDLE_BYTES)
    assert source.poll(QUESTION, MAX_BUNDLE_BYTES) == first  # 304, the second time
    assert fetched(source) == MADE.payload
    for offset in (1, 16, 699_999):
        assert fetched(source, offset) == MADE.payload[offset:]
    source.send(b"receipt")
    assert source.acknowledgement(leaf_hash(b"receipt"), 10**6) is None


def test_another_registry_is_asked_when_one_does_not_answer(serve: Callable[..., str]) -> None:
    source = HttpSource(["http://127.0.0.1:1", serve(plain(500)), serve()])
    assert source.poll(QUESTION, MAX_BUNDLE_BYTES)
    assert fetched(source) == MADE.payload


def test_a_download_goes_on_at_the_next_registry(serve: Callable[..., str]) -> None:
    half = MADE.payload[:300_000]
    asked: list[str] = []

    def note(handler: BaseHTTPRequestHandler) -> bool:
        asked.append(handler.headers.get("Range", ""))
        return False

    cut = serve(plain(200, half, length=len(MADE.payload)))
    assert fetched(HttpSource([cut, serve(note)])) == MADE.payload
    assert asked == ["bytes=300000-"]


def test_a_registry_without_ranges_is_read_from_its_start(serve: Callable[..., str]) -> None:
    source = HttpSource([serve(plain(200, MADE.payload))])
    assert fetched(source, 12_345) == MADE.payload[12_345:]


PROBLEM = b'{"reason": "no-such-product", "why": "it is not here"}'


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (plain(500), "registry-error"),
        (plain(404, PROBLEM), "registry-error"),
        (plain(404, b"\xff" * 50), "registry-error"),
        (plain(302, Location="http://127.0.0.1:1/"), "registry-error"),
        (plain(304), "registry-error"),
        (plain(204), "registry-error"),
        (plain(200, b"x" * (MAX_BUNDLE_BYTES + 1)), "oversized-answer"),
        (plain(200, b"x", length=10**12), None),
    ],
)
def test_odd_answers_to_a_poll(serve: Callable[..., str], odd: Odd, reason: str | None) -> None:
    source = HttpSource([serve(odd)])
    if reason is None:
        # Cut short: what came is handed on, and refused as a bundle.
        assert source.poll(QUESTION, MAX_BUNDLE_BYTES) == b"x"
        return
    with pytest.raises(Unreachable) as caught:
        source.poll(QUESTION, MAX_BUNDLE_BYTES)
    assert caught.value.reason == reason


def endless(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        return True


def nonsense(handler: BaseHTTPRequestHandler) -> bool:
    handler.wfile.write(b"\x00\xff\r\n\r\n" * 10)
    handler.close_connection = True
    return True


def hung_up(handler: BaseHTTPRequestHandler) -> bool:
    handler.close_connection = True
    return True


def drip(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.close_connection = True
    try:
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.01)
    except OSError:
        pass
    return True


def test_an_endless_body_is_left(serve: Callable[..., str]) -> None:
    source = HttpSource([serve(endless)])
    with pytest.raises(Unreachable):
        source.poll(QUESTION, MAX_BUNDLE_BYTES)
    assert len(fetched(source)) == len(MADE.payload)  # no byte more than was asked for


@pytest.mark.parametrize("odd", [nonsense, hung_up])
def test_no_http_at_all(serve: Callable[..., str], odd: Odd) -> None:
    source = HttpSource([serve(odd)])
    acts: list[Callable[[], object]] = [
        lambda: source.poll(QUESTION, MAX_BUNDLE_BYTES),
        lambda: fetched(source),
        lambda: source.send(b"receipt"),
        lambda: source.acknowledgement(DIGEST, 100),
    ]
    for act in acts:
        with pytest.raises(Unreachable):
            act()


def test_a_slow_drip_is_left(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The deadline is moved, not waited for.
    monkeypatch.setattr(wire, "DEADLINE", 0)
    with pytest.raises(Unreachable) as caught:
        HttpSource([serve(drip)]).poll(QUESTION, MAX_BUNDLE_BYTES)
    assert caught.value.reason == "slow-answer"
    monkeypatch.setattr(http_source, "PATIENCE", 0)
    monkeypatch.setattr(http_source, "SLOWEST", 10**9)
    with pytest.raises(Unreachable):
        fetched(HttpSource([serve(drip)]))


def held(*start: bytes, then: bytes) -> Odd:
    """A registry that says ``start``, and then the same few bytes again and again."""

    def odd(handler: BaseHTTPRequestHandler) -> bool:
        handler.close_connection = True
        try:
            handler.wfile.write(b"".join(start))
            for _ in range(1000):
                handler.wfile.write(then)
                time.sleep(0.005)
        except OSError:
            pass
        return True

    return odd


OK = b"HTTP/1.1 200 OK\r\n"
HOLDING = {
    "status line": held(then=b"H"),
    "header drip": held(OK, b"X-Long: ", then=b"x"),
    "many headers": held(OK, then=b"X: y\r\n"),
    "continue for ever": held(then=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers of continue": held(b"HTTP/1.1 100 Continue\r\n", then=b"X: y\r\n"),
    "chunk size drip": held(OK, b"Transfer-Encoding: chunked\r\n\r\n1;", then=b"x"),
    "trailers for ever": held(
        OK, b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", then=b"X: y\r\n"
    ),
    "closing": held(OK, b"Connection: close\r\n\r\n", then=b"x"),
}


@pytest.mark.parametrize("how", HOLDING)
def test_no_registry_holds_a_device(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Each ends after five seconds by itself, and then in another way: who waits has lost."""
    monkeypatch.setattr(wire, "DEADLINE", 0.2)
    monkeypatch.setattr(http_source, "PATIENCE", 0.2)
    monkeypatch.setattr(http_source, "SLOWEST", 10**6)
    source = HttpSource([serve(HOLDING[how])])
    acts: list[Callable[[], object]] = [
        lambda: source.poll(QUESTION, MAX_BUNDLE_BYTES),
        lambda: fetched(source),
        lambda: source.send(b"receipt"),
        lambda: source.acknowledgement(DIGEST, 10**6),
    ]
    for act in acts:
        with pytest.raises(Unreachable) as caught:
            act()
        assert caught.value.reason == "slow-answer"


def test_a_slow_payload_is_left(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_source, "PATIENCE", 0.2)
    monkeypatch.setattr(http_source, "SLOWEST", 10**6)
    with pytest.raises(Unreachable) as caught:
        fetched(HttpSource([serve(drip)]))
    assert caught.value.reason == "slow-answer"


def test_a_payload_may_take_longer_than_an_answer(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "DEADLINE", 0.2)

    def steady(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(MADE.payload)))
        handler.end_headers()
        for at in range(0, len(MADE.payload), 100_000):
            handler.wfile.write(MADE.payload[at : at + 100_000])
            time.sleep(0.05)
        return True

    assert fetched(HttpSource([serve(steady)])) == MADE.payload


def test_what_the_wire_library_cannot_say_is_an_error_of_ours() -> None:
    class Late(HttpSource):
        """A registry whose address went bad after it was looked at."""

        def __init__(self, address: str) -> None:
            super().__init__(["http://127.0.0.1:1"])
            self._registries = [address]

    for address in (f"http://{'a' * 70}.example", "http://127.0.0.1:1/\N{SNOWMAN}", "http://h:x"):
        with pytest.raises(Unreachable):
            Late(address).poll(QUESTION, MAX_BUNDLE_BYTES)


def test_silence_is_left() -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        source = HttpSource([f"http://127.0.0.1:{silent.getsockname()[1]}"], timeout=0.2)
        with pytest.raises(Unreachable):
            source.poll(QUESTION, MAX_BUNDLE_BYTES)


@pytest.mark.parametrize(
    "odd",
    [
        plain(206, MADE.payload[5:], Content_Range="bytes 4-699999/700000"),
        plain(206, MADE.payload[5:]),
        plain(416),
        plain(200, MADE.payload[:400], length=len(MADE.payload)),
    ],
)
def test_wrong_ranges(serve: Callable[..., str], odd: Odd) -> None:
    with pytest.raises(Unreachable):
        fetched(HttpSource([serve(odd)]), 500)


@pytest.mark.parametrize(
    ("status", "error"),
    [(422, Refused), (404, Refused), (429, Unreachable), (500, Unreachable), (302, Unreachable)],
)
def test_receipts_that_are_not_taken(
    serve: Callable[..., str], status: int, error: type[FirmledgerError]
) -> None:
    with pytest.raises(error):
        HttpSource([serve(plain(status, PROBLEM))]).send(b"receipt")


def test_a_receipt_that_one_registry_does_not_take_goes_to_the_next(
    serve: Callable[..., str],
) -> None:
    taken: list[str] = []

    def note(handler: BaseHTTPRequestHandler) -> bool:
        taken.append(handler.path)
        return False

    HttpSource([serve(plain(422, PROBLEM)), serve(note)]).send(b"receipt")
    assert taken == ["/v1/receipts"]


def test_registries_can_be_asked_one_by_one(serve: Callable[..., str]) -> None:
    good = serve()
    liar, honest = HttpSource([serve(plain(200, b"lies")), good]).each()
    assert liar.poll(QUESTION, MAX_BUNDLE_BYTES) == b"lies"
    assert honest.poll(QUESTION, MAX_BUNDLE_BYTES) != b"lies"
    alone = HttpSource([good])
    assert alone.each() == (alone,)


def test_an_acknowledgement_longer_than_allowed_is_left(serve: Callable[..., str]) -> None:
    with pytest.raises(Unreachable):
        HttpSource([serve(plain(200, b"x" * 101))]).acknowledgement(DIGEST, 100)


@pytest.mark.parametrize(
    "address",
    [
        *("", "ftp://x", "http://", "x", "http://a?b", "http://u:p@h", "http://h:0", "http://h:x"),
        *(f"http://{'a' * 70}.example", "http://a..b", "http://h/\N{SNOWMAN}", "http://h/a b"),
        *("http://h/\x7f", "http://[::1", "http://h\x00"),
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(Misuse):
        HttpSource([address])


def test_a_loop_of_redirects_is_not_entered(serve: Callable[..., str]) -> None:
    asked: list[str] = []

    def onwards(handler: BaseHTTPRequestHandler) -> bool:
        asked.append(handler.path)
        return plain(302, Location=handler.path)(handler)

    source = HttpSource([serve(onwards)])
    acts: list[Callable[[], object]] = [
        lambda: source.poll(QUESTION, MAX_BUNDLE_BYTES),
        lambda: fetched(source),
        lambda: source.send(b"receipt"),
        lambda: source.acknowledgement(DIGEST, 100),
    ]
    for number, act in enumerate(acts, 1):
        with pytest.raises(Unreachable):
            act()
        assert len(asked) == number


def test_a_held_poll_asks_for_it_and_is_the_same_question(serve: Callable[..., str]) -> None:
    asked: list[tuple[str, str]] = []

    def note(handler: BaseHTTPRequestHandler) -> bool:
        asked.append((handler.path, handler.headers.get("If-None-Match", "")))
        return False

    source = HttpSource([serve(note)])
    first = source.poll(QUESTION, MAX_BUNDLE_BYTES)
    assert source.poll(replace(QUESTION, wait=55), MAX_BUNDLE_BYTES) == first
    (path, tag), (held, again) = asked
    assert held == f"{path}&wait=55" and (tag, bool(again)) == ("", True)


def test_no_registry_at_all() -> None:
    with pytest.raises(Misuse):
        HttpSource([])


def test_a_registry_gives_the_terminal_no_orders(serve: Callable[..., str]) -> None:
    order = b'{"reason": "\\u001b[2J", "why": "\\u001b]0;all is well\\u0007"}'

    def status_line(handler: BaseHTTPRequestHandler) -> bool:
        handler.wfile.write(b"HTTP/1.1 2\x1b[31m0 \x1b[2J\r\n\r\n")
        handler.close_connection = True
        return True

    for odd in (plain(404, order), status_line):
        source = HttpSource([serve(odd)])
        for act in (lambda s=source: s.poll(QUESTION, 1000), lambda s=source: s.send(b"r")):
            with pytest.raises(FirmledgerError) as caught:
                act()  # type: ignore[no-untyped-call]
            assert str(caught.value).isprintable() and caught.value.why.isprintable()
