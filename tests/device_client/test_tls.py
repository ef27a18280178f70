"""TLS on the loopback: who may vouch for a registry, and that nothing is said to an impostor.

The authorities and certificates are made for each run; nothing of them outlives it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from device_client.adapters.http_source import HttpSource
from device_client.adapters.wire import authorities
from protocol.bundle import MAX_BUNDLE_BYTES, Bundle
from protocol.errors import LocalFault, Unreachable
from tests.device_client import registry as world
from tests.device_client.http_registry import serving
from tests.device_client.test_cli import Shop, shop
from tests.device_client.test_http_source import DIGEST, MADE, QUESTION

__all__ = ["shop"]  # a fixture

HERE = "127.0.0.1"


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Authority:
    """Signs certificates; its own is in ``file``."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        own = self._made(self._name, self._key, timedelta(days=1))
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._write(self.file, own)

    def certify(self, address: str, lasts: timedelta = timedelta(days=1)) -> Path:
        """A file with a certificate for ``address``, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._made(named(address), key, lasts)
        name = x509.IPAddress(ip_address(address)) if address == HERE else x509.DNSName(address)
        made = made.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        file = self._folder / f"server-{address}-{lasts.total_seconds():.0f}.pem"
        self._write(file, made)
        with file.open("ab") as more:
            more.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        return file

    def _made(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + lasts)
        )

    def _write(self, file: Path, made: x509.CertificateBuilder) -> None:
        signed = made.sign(self._key, hashes.SHA256())
        file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Starts a registry with a certificate; its address. What it was asked is in `serve.asked`."""
    with ExitStack() as stack:

        def start(certificate: Path) -> str:
            def note(handler: BaseHTTPRequestHandler) -> bool:
                asked.append(handler.path)
                return False

            chain = world.Chain()
            chain.publish(MADE)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            return stack.enter_context(serving(world.Registry(chain), note, context))

        asked: list[str] = []
        start.asked = asked  # type: ignore[attr-defined]
        yield start


def asking(address: str, authority: Path | None) -> HttpSource:
    return HttpSource([address], 5, lambda: authorities(authority))


def test_a_registry_that_our_authority_vouches_for_is_asked(
    ours: Authority, serve: Callable[[Path], str]
) -> None:
    source = asking(serve(ours.certify(HERE)), ours.file)
    assert Bundle.decode(source.poll(QUESTION, MAX_BUNDLE_BYTES)).static is not None
    assert b"".join(source.payload(DIGEST, 5, len(MADE.payload))) == MADE.payload[5:]
    source.send(b"receipt")
    assert source.acknowledgement(DIGEST, 1000) is None


CERTIFICATES: dict[str, Callable[[Path, Authority], Path]] = {
    "of another authority": lambda folder, ours: Authority(folder, "theirs").certify(HERE),
    "of another host": lambda folder, ours: ours.certify("updates.example.org"),
    "that has expired": lambda folder, ours: ours.certify(HERE, timedelta(seconds=-5)),
}


@pytest.mark.parametrize("which", CERTIFICATES)
def test_a_wrong_certificate_is_told_nothing(
    tmp_path: Path, ours: Authority, serve: Callable[[Path], str], which: str
) -> None:
    source = asking(serve(CERTIFICATES[which](tmp_path, ours)), ours.file)
    acts: list[Callable[[], object]] = [
        lambda: source.poll(QUESTION, MAX_BUNDLE_BYTES),
        lambda: b"".join(source.payload(DIGEST, 0, 100)),
        lambda: source.send(b"receipt"),
        lambda: source.acknowledgement(DIGEST, 1000),
    ]
    for act in acts:
        with pytest.raises(Unreachable) as caught:
            act()
        assert caught.value.reason == "wrong-certificate"
    assert serve.asked == []  # type: ignore[attr-defined]


def test_a_self_made_authority_is_not_the_systems(
    ours: Authority, serve: Callable[[Path], str]
) -> None:
    with pytest.raises(Unreachable) as caught:
        asking(serve(ours.certify(HERE)), None).poll(QUESTION, MAX_BUNDLE_BYTES)
    assert caught.value.reason == "wrong-certificate"


def test_a_registry_that_speaks_plainly_on_a_tls_address(ours: Authority) -> None:
    with serving(world.Registry(world.Chain())) as url, pytest.raises(Unreachable):
        asking(url.replace("http:", "https:"), ours.file).poll(QUESTION, MAX_BUNDLE_BYTES)


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\xff" * 99])
def test_authorities_that_are_none_are_this_devices_fault(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LocalFault) as caught:
        asking("https://127.0.0.1:1", file).poll(QUESTION, MAX_BUNDLE_BYTES)
    assert caught.value.reason == "ca-file"


def test_the_next_registry_is_asked_where_the_first_is_an_impostor(
    tmp_path: Path, ours: Authority, serve: Callable[[Path], str]
) -> None:
    false = serve(Authority(tmp_path, "theirs").certify(HERE))
    good = serve(ours.certify(HERE))
    source = HttpSource([false, good], 5, lambda: authorities(ours.file))
    assert source.poll(QUESTION, MAX_BUNDLE_BYTES)
    assert b"".join(source.payload(DIGEST, 0, len(MADE.payload))) == MADE.payload


def test_a_good_certificate_makes_no_lie_true(shop: Shop, ours: Authority) -> None:
    """From the settings to the slot; and that TLS is not what is believed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.certify(HERE))
    with serving(shop.registry, context=context) as url:
        shop.url = url
        shop.init("--set", f"ca_file={ours.file}")
        shop.release("1.0.0")
        honest = shop.registry.poll

        def lie(*asked: object) -> bytes:
            data = bytearray(honest(*asked))  # type: ignore[arg-type]
            data[len(data) // 2] ^= 1
            return bytes(data)

        shop.registry.poll = lie  # type: ignore[method-assign]
        assert "error" in shop.run("update", "--yes", code=1)
        shop.registry.poll = honest  # type: ignore[method-assign]
        assert shop.run("update", "--yes")["version"] == "1.0.0"
