"""The lying registry relays what it does not lie about, byte for byte; each lie shows."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from demo.adversary import (
    HONEST,
    Lie,
    LyingRegistry,
    altered_manifest,
    forged_payload,
    instead,
    not_published,
    sealed_by_strangers,
)
from protocol.bundle import Bundle, offer, prove
from protocol.errors import FirmledgerError, Untrusted
from protocol.ids import Version
from protocol.records import Release
from tests.protocol.published import ciphertext, make_manifest, publish

STORY = publish()
TRUE = Bundle(STORY.fresh(), STORY.static).encode()
BUNDLE, BLOB = "/v1/products/0x00/bundle?device=0x00", "/v1/blobs/00"


class Truth(BaseHTTPRequestHandler):
    """A registry with one bundle and one payload; it gives back what is posted."""

    def do_GET(self) -> None:
        if self.path == BUNDLE:
            self.answer(200, TRUE, etag='"tag"')
        elif self.path == BLOB and self.headers.get("range") == "bytes=100-":
            self.answer(206, ciphertext()[100:], content_range="bytes 100-199/200")
        elif self.path == BLOB:
            self.answer(200, ciphertext())
        else:
            self.answer(404, b'{"reason": "unknown"}')

    def do_POST(self) -> None:
        self.answer(202, self.rfile.read(int(self.headers["content-length"])))

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def truth() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Truth)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def liar(truth: str) -> Iterator[LyingRegistry]:
    with LyingRegistry(truth) as server:
        yield server


def ask(
    liar: LyingRegistry, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    where = urlsplit(liar.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def judge(answer: bytes) -> None:
    """What a device that trusts the story's validators does with a bundle."""
    bundle = Bundle.decode(answer)
    view = prove(bundle.fresh, STORY.anchor)
    assert bundle.static is not None
    offer(bundle.static, view)


def test_an_honest_adversary_is_the_registry(liar: LyingRegistry) -> None:
    assert liar.lie == HONEST
    status, body, headers = ask(liar, BUNDLE)
    assert (status, body) == (200, TRUE)
    assert "etag" not in headers  # so that a later lie cannot be hidden behind "not modified"
    judge(body)
    assert ask(liar, BLOB)[:2] == (200, ciphertext())
    status, body, headers = ask(liar, BLOB, range="bytes=100-")
    assert (status, body) == (206, ciphertext()[100:])
    assert headers["content-range"] == "bytes 100-199/200"
    assert ask(liar, "/v1/nothing")[:2] == (404, b'{"reason": "unknown"}')
    assert ask(liar, "/v1/receipts", b"receipt")[:2] == (202, b"receipt")


def unpublished() -> Lie:
    """A release that is signed as it should be, and that the ledger has not."""
    other = publish(make_manifest(version=Version.parse("6.6.6")), version=Version.parse("6.6.6"))
    made_up = Release(2, other.terms.hash_struct(), other.state)
    return not_published(other.static, STORY.fresh(claimed=made_up))


OLD = Bundle(STORY.fresh(number=3), STORY.static).encode()


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (altered_manifest(), "wrong-manifest"),
        (sealed_by_strangers(), "foreign-seal"),
        (unpublished(), "not-on-ledger"),
    ],
)
def test_a_lie_is_a_bundle_that_a_device_refuses(
    liar: LyingRegistry, lie: Lie, reason: str
) -> None:
    liar.lie = lie
    status, body, _headers = ask(liar, BUNDLE)
    assert status == 200 and body != TRUE
    with pytest.raises(Untrusted) as refused:
        judge(body)
    assert refused.value.reason == reason
    assert ask(liar, BLOB)[1] == ciphertext()


def test_an_old_answer_is_genuine_in_itself(liar: LyingRegistry) -> None:
    """Only what the device has seen since, and its clock, tell that it is old."""
    liar.lie = instead(OLD)
    body = ask(liar, BUNDLE)[1]
    assert body == OLD
    judge(body)


def test_a_forged_payload_differs_in_one_bit(liar: LyingRegistry) -> None:
    liar.lie = forged_payload()
    forged = ask(liar, BLOB)[1]
    differing = [a ^ b for a, b in zip(forged, ciphertext(), strict=True) if a != b]
    assert differing == [1]
    assert ask(liar, BUNDLE)[1] == TRUE


def test_an_answer_without_a_release_is_left_alone(liar: LyingRegistry) -> None:
    nothing = Bundle(STORY.fresh()).encode()
    assert altered_manifest().bundle(nothing) == nothing


def test_a_registry_that_is_gone_is_a_bad_gateway() -> None:
    with LyingRegistry("http://127.0.0.1:1") as liar:
        assert ask(liar, BUNDLE)[0] == 502


def test_the_judge_is_no_formality() -> None:
    with pytest.raises(FirmledgerError):
        judge(TRUE[:-1])
