"""The nouns both sides use, as types that cannot be confused with plain bytes and numbers.

Guarantees: a value of these types has the right length and range. They carry no meaning beyond
that: whether a digest is *the* digest is for the verifiers to say.
"""

from __future__ import annotations

import re
from typing import Self

from protocol.errors import Malformed

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1


class _FixedBytes(bytes):
    """Immutable bytes of one exact length; prints as 0x-hex."""

    size: int = 0
    noun: str = "value"

    def __new__(cls, raw: bytes) -> Self:
        """``raw``: exactly ``size`` bytes, otherwise `Malformed`."""
        if len(raw) != cls.size:
            raise Malformed(
                "wrong-length",
                f"{cls.noun} refused",
                f"it has {len(raw)} bytes, not {cls.size}",
                "check that it was copied whole",
            )
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From hex, with or without ``0x``; `Malformed` otherwise."""
        digits = text.removeprefix("0x")
        if not re.fullmatch(r"(?:[0-9a-fA-F]{2})*", digits):
            raise Malformed(
                "not-hex",
                f"{cls.noun} refused",
                f"{text[:80]!r} is not hexadecimal",
                f"give {cls.size} bytes as {2 * cls.size} hex digits",
            )
        return cls(bytes.fromhex(digits))

    def __str__(self) -> str:
        return "0x" + self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class Digest(_FixedBytes):
    """A SHA-256 digest (FIPS 180-4), 32 bytes: of an image, a manifest, a blob."""

    size = 32
    noun = "digest"


class Hash(_FixedBytes):
    """A keccak-256 hash, 32 bytes: of a block, a commitment, an EIP-712 structure."""

    size = 32
    noun = "hash"


class ProductId(_FixedBytes):
    """keccak256(creator, salt), 32 bytes; see docs/spec/commitments.md."""

    size = 32
    noun = "product id"


class DeviceId(_FixedBytes):
    """SHA-256 of the device's raw 32-byte Ed25519 public key."""

    size = 32
    noun = "device id"


class KeyId(_FixedBytes):
    """SHA-256 of a signing key's deterministic COSE_Key thumbprint input (RFC 9679), 32 bytes."""

    size = 32
    noun = "key id"


class Address(_FixedBytes):
    """An account on the ledger, 20 bytes."""

    size = 20
    noun = "address"


class Version(int):
    """A release version: uint64 = major(16) . minor(16) . patch(32); orders as a number."""

    def __new__(cls, value: int) -> Self:
        """``value``: 0 <= value < 2**64, otherwise `Malformed`."""
        if not 0 <= value <= U64_MAX:
            raise Malformed(
                "version-range",
                "version refused",
                f"{value} is not a uint64",
                "use major.minor.patch with 16, 16 and 32 bits",
            )
        return super().__new__(cls, value)

    @classmethod
    def of(cls, major: int, minor: int, patch: int) -> Self:
        """From its three parts; `Malformed` if one does not fit its bits."""
        if not (0 <= major < 1 << 16 and 0 <= minor < 1 << 16 and 0 <= patch <= U32_MAX):
            raise Malformed(
                "version-range",
                "version refused",
                f"{major}.{minor}.{patch} does not fit",
                "major and minor are at most 65535, patch at most 4294967295",
            )
        return cls(major << 48 | minor << 32 | patch)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``major.minor.patch`` in plain decimal; `Malformed` otherwise."""
        match = re.fullmatch(
            r"(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,9})", text, re.ASCII
        )
        if not match:
            raise Malformed(
                "version-syntax",
                "version refused",
                f"{text[:40]!r} is not major.minor.patch",
                "write it like 1.4.0",
            )
        return cls.of(*(int(part) for part in match.groups()))

    def __str__(self) -> str:
        return f"{self >> 48}.{self >> 32 & 0xFFFF}.{self & U32_MAX}"

    def __repr__(self) -> str:
        return f"Version({self})"
