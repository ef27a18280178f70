"""What a device is given before it leaves, and what it gives: trust file, class keys, identity.

Rules: the two belong together and lie together, ``trust.json`` and ``trust.json.key`` (0600). The
lowest height a device will believe is that of the ledger when the file was written.

At the publisher's side: it reads the product's keys, and asks the registry only for what devices
then check again (or could not believe, whoever said it).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from protocol.bundle import Bundle, View, prove
from protocol.errors import LocalFault, Malformed, Misuse, Unreachable
from protocol.ids import Address, DeviceId, Hash, KeyId
from protocol.receipt import device_id
from protocol.trustfile import MAX_TRUST_BYTES, ClassKey, ClassKeys, TrustFile
from registry.depth import read_json
from registry.files import whole_file
from registry.keys import ProductKeys

MAX_DEVICE_FILE = 64 * 1024


def trust_file(keys: ProductKeys, status: Any, active: Sequence[bytes], registry: str) -> TrustFile:
    """The trust file of a product; ``status`` is the registry's /v1/status."""
    if status["head"] is None:
        raise Unreachable(
            "nothing-indexed",
            "no trust file written",
            "the registry has not followed a block of its ledger yet",
            "try again in a moment",
        )
    return TrustFile(
        chain_id=int(status["chain_id"]),
        contract=Address.parse(status["contract"]),
        code_hash=Hash.parse(status["code_hash"]),
        validators=tuple(Address.parse(address) for address in status["validators"]),
        min_height=int(status["head"]["number"]),
        product_id=keys.product,
        product_name=keys.name,
        signing_keys=tuple(KeyId(key) for key in active),
        max_age=int(status["max_age"]),
        recovery_threshold=0,
        recovery_keys=(),
        registries=(registry,),
        embedded=bool(status["embedded"]),
    )


def shown_view(bundle: bytes, trust: TrustFile) -> View:
    """What a bundle proves to who believes this trust file; `Untrusted` if nothing."""
    return prove(Bundle.decode(bundle).fresh, trust.anchor)


def class_key_file(keys: ProductKeys) -> ClassKeys:
    """The class keys of a product, every epoch."""
    return ClassKeys(
        keys.product,
        tuple(
            ClassKey(
                epoch=key.epoch,
                kid=key.kid.hex(),
                private_key=key.private_key.private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                ).decode("ascii"),
            )
            for key in keys.class_keys
        ),
    )


def write_trust(path: Path, trust: TrustFile, class_keys: ClassKeys) -> Path:
    """Writes both, the secret one first; returns where that is."""
    secret = path.with_name(path.name + ".key")
    with whole_file(secret, mode=0o600) as file:
        file.write(class_keys.to_bytes())
    with whole_file(path) as file:
        file.write(trust.to_bytes())
    return secret


def read_trust(path: Path) -> TrustFile:
    """A trust file; `Misuse` ``no-such-file``, `LocalFault`, or `Malformed` if it is none."""
    try:
        with path.open("rb") as file:
            return TrustFile.parse(file.read(MAX_TRUST_BYTES + 1))
    except FileNotFoundError:
        raise Misuse(
            "no-such-file",
            f"trust file {path} not read",
            "it is not there",
            "write one with `firmledger product trust`",
        ) from None
    except OSError as fault:
        raise LocalFault(
            "file-unreadable", f"{path} not read", str(fault), "check its permissions"
        ) from fault


def device_key(path: Path, product: str) -> bytes:
    """The raw Ed25519 key in a device's public identity file, if it is for this product."""
    try:
        with path.open("rb") as file:
            members = read_json(file.read(MAX_DEVICE_FILE))
        key = bytes.fromhex(members["public_key"])
        claimed, meant = DeviceId.parse(members["device_id"]), str(members["product"])
        if device_id(key) != claimed:
            raise ValueError("its id is not that of its key")
    except FileNotFoundError:
        raise Misuse(
            "no-such-file",
            f"{path} not enrolled",
            "it is not there",
            "give the device.json that `firmledger-device init` wrote",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, Malformed) as fault:
        raise Malformed(
            "bad-device-file",
            f"{path} not enrolled",
            f"it is no device's identity: {fault}",
            "give the device.json that `firmledger-device init` wrote",
        ) from fault
    if meant != product:
        raise Misuse(
            "another-product",
            f"{path} not enrolled",
            f"that device was set up for product {meant[:80]}",
            "enrol it there, or set it up again with this product's trust file",
        )
    return key
