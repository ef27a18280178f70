"""The device's secrets as files: its own Ed25519 key, and the class keys it was given.

Guarantees: key files are readable by their owner alone (0600); the device's own is made once and
never overwritten. What leaves this module is signatures, content keys and public values.

Class keys are kept as plain scalars, taken out of their PEM once, at set-up: to read PEM costs a
device 30 ms and 3 MiB each time.
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
from protocol.payload import class_kid, kid_epoch, parse_info, unwrap
from protocol.receipt import Receipt, device_id, sign
from protocol.trustfile import MAX_TRUST_BYTES, ClassKeys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DEVICE_KEY_FORMAT = "firmledger-device-key-1"
CLASS_KEYS_FORMAT = "firmledger-device-class-keys-1"
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
        scalar = self._class_keys.get(kid)
        if scalar is None:
            raise Refused(
                "class-key-epoch",
                "payload refused",
                f"it is encrypted for class key {kid.hex()}, which this device does not hold",
                "give the device the class key of that epoch",
                needed_epoch=kid_epoch(kid),
            )
        return unwrap(encryption_info, cose.p256_private_key(scalar), kid)

    def require_readable(self) -> None:
        """`LocalFault` unless both files hold sound keys."""
        _ = self._device_key
        for scalar in self._class_keys.values():
            try:
                cose.p256_private_key(scalar)
            except Malformed:
                raise _class_keys_damaged(self._class_keys_path.name) from None

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
    def _class_keys(self) -> dict[bytes, bytes]:
        """Scalars by key id."""
        try:
            document = json.loads(read_bounded(self._class_keys_path, MAX_TRUST_BYTES))
            if document["format"] != CLASS_KEYS_FORMAT:
                raise ValueError("format")
            keys = document["keys"]
            return {bytes.fromhex(kid): bytes.fromhex(scalar) for kid, scalar in keys.items()}
        except (ValueError, KeyError, TypeError, AttributeError, Malformed):
            raise _class_keys_damaged(self._class_keys_path.name) from None


def _class_keys_damaged(name: str) -> LocalFault:
    return LocalFault(
        "class-keys-damaged",
        "the class keys refused",
        f"{name} does not hold class keys",
        "restore it, or set the device up again with `init --force`",
    )


def stored_class_keys(keys: ClassKeys) -> bytes:
    """The file for `FileIdentity` with the keys of ``keys``; `Malformed` if one is not sound."""
    scalars = {}
    for key in keys.epochs:
        private = _p256(key.private_key)
        kid = class_kid(cose.public_key_of(private), key.epoch)
        if kid.hex() != key.kid.removeprefix("0x"):
            raise _bad_class_key(f"the key of epoch {key.epoch} is not the one its kid names")
        scalars[kid.hex()] = private.private_numbers().private_value.to_bytes(32, "big").hex()
    document = {"format": CLASS_KEYS_FORMAT, "keys": scalars}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _p256(pem: str) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise _bad_class_key("a private key in it is not a P-256 key in PKCS #8 PEM")
    return key


def _bad_class_key(why: str) -> Malformed:
    return Malformed(
        "bad-class-key", "class key file refused", why, "get the file again from its maker"
    )
