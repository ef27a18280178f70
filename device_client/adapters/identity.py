"""The device's secrets as files: its own Ed25519 key, and the class keys it was given.

Guarantees: a key file is made once, readable by its owner alone (0600), and never overwritten. What
leaves this module is signatures, content keys and public values.
"""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from device_client.adapters.directory import read_bounded, write_secret
from protocol import cose
from protocol.errors import LocalFault, Malformed, Refused
from protocol.ids import DeviceId
from protocol.payload import kid_epoch, parse_info, unwrap
from protocol.receipt import Receipt, device_id, sign
from protocol.trustfile import MAX_TRUST_BYTES, ClassKeys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DEVICE_KEY_FORMAT = "firmledger-device-key-1"
_SEED_BYTES = 32


def create_device_key(path: Path) -> None:
    """A new device key, unless there is one already."""
    if path.exists():
        return
    document = {"format": DEVICE_KEY_FORMAT, "private_key": os.urandom(_SEED_BYTES).hex()}
    write_secret(path, json.dumps(document, sort_keys=True).encode() + b"\n")


class FileIdentity:
    """Implements `ports.Identity` over two files."""

    def __init__(self, device_key: Path, class_keys: Path) -> None:
        """Both are read when first needed."""
        self._device_key_path, self._class_keys_path = device_key, class_keys

    @cached_property
    def device_id(self) -> DeviceId:
        """SHA-256 of the public key."""
        return device_id(self.public_key)

    @property
    def public_key(self) -> cose.PublicKey:
        """The device's public key."""
        return cose.public_key_of(self._device_key)

    def sign(self, receipt: Receipt) -> bytes:
        """The receipt, signed."""
        return sign(receipt, self._device_key)

    def content_key(self, encryption_info: bytes) -> tuple[bytes, bytes]:
        """(key, IV) of a payload; `Refused` if it is for an epoch whose key is not here."""
        kid = parse_info(encryption_info).kid or b""
        held = self._class_keys.of_epoch(kid_epoch(kid))
        if held is None or held.kid.removeprefix("0x") != kid.hex():
            raise Refused(
                "class-key-epoch",
                "payload refused",
                f"it is encrypted for class key {kid.hex()}, which this device does not hold",
                "give the device the class key of that epoch",
                needed_epoch=kid_epoch(kid),
            )
        return unwrap(encryption_info, _p256(held.private_key), kid)

    @cached_property
    def _device_key(self) -> Ed25519PrivateKey:
        path = self._device_key_path
        try:
            document = json.loads(read_bounded(path, 1024))
            if document["format"] != DEVICE_KEY_FORMAT:
                raise ValueError("format")
            return cose.ed25519_private_key(bytes.fromhex(document["private_key"]))
        except (ValueError, KeyError, TypeError, Malformed):
            raise LocalFault(
                "device-key-damaged",
                "the device key refused",
                f"{path.name} is not a device key",
                "restore it, or set up a new device and enrol it",
            ) from None

    @cached_property
    def _class_keys(self) -> ClassKeys:
        return ClassKeys.parse(read_bounded(self._class_keys_path, MAX_TRUST_BYTES))


def _p256(pem: str) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise Malformed(
            "bad-trust-file",
            "class key file refused",
            "a private key in it is not a P-256 key in PKCS #8 PEM",
            "get the file again from its maker",
        )
    return key
