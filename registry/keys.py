"""The publisher's keys: who approves, what signs manifests, what opens payloads.

Layout, under the registry's directory (``DIR/publisher``, mode 0700, every file 0600):

=======================  ==========================================================================
``approvers/NAME.json``  an account: ``{"address": "0x…", "private_key": "0x…"}``
``products/NAME.json``   what one product needs to build releases: its id and salt, the ledger it is
                         on, the manifest-signing key (Ed25519), the device-class keys by epoch
``signing/NAME-N.json``  further manifest-signing keys (`registry.signing_keys`)
``recovery/NAME-N.json`` recovery keys (`registry.recovery`)
=======================  ==========================================================================

Guarantees: those of `registry.key_files`: never half written, never overwritten, nobody else's to
read.

Rules: the service never opens these files; no module it runs imports this one
(tests/registry/test_keys_apart.py watches every file it opens). Entropy is an argument.

Not done here: hardware tokens and remote signers. A private key in a file is for trying things out
and for machines that hold nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coincurve import PrivateKey

from protocol import cose, payload
from protocol.errors import Misuse
from protocol.ids import Address, Digest, Hash, ProductId
from protocol.records import Ledger, product_id
from registry import approvals
from registry.key_files import readable, secret_of, write_key_file
from registry.naming import check_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PRODUCT_FORMAT = "firmledger-product-keys-1"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Account:
    """A key that acts on the ledger: an approver's, a guardian's, an auditor's."""

    name: str
    address: Address
    secret: bytes

    def sign(self, digest: Hash) -> approvals.Signature:
        """The account's approval of an EIP-712 digest."""
        return approvals.sign(digest, self.secret)


@dataclass(frozen=True, slots=True)
class ClassKey:
    """A device-class key: P-256, ``secret`` its scalar (32 bytes); ``epoch`` counts from 1."""

    epoch: int
    secret: bytes

    @property
    def private_key(self) -> EllipticCurvePrivateKey:
        """The key as `cryptography` has it."""
        return cose.p256_private_key(self.secret)

    @property
    def public(self) -> cose.PublicKey:
        """Its public half, which payloads are encrypted for."""
        return cose.public_key_of(self.private_key)

    @property
    def kid(self) -> bytes:
        """`payload.class_kid`, 16 bytes."""
        return payload.class_kid(self.public, self.epoch)


@dataclass(frozen=True, slots=True)
class ProductKeys:
    """What the publisher holds for one product; ``hardware`` are the revisions it is built for."""

    name: str
    product: ProductId
    salt: Digest
    ledger: Ledger
    hardware: tuple[int, int]
    signing_secret: bytes
    class_keys: tuple[ClassKey, ...]

    @property
    def signer(self) -> cose.Signer:
        """Signs manifests."""
        return cose.signer(cose.ed25519_private_key(self.signing_secret))

    @property
    def class_key(self) -> ClassKey:
        """The device-class key of the newest epoch."""
        return max(self.class_keys, key=lambda key: key.epoch)

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "format": PRODUCT_FORMAT,
            "name": self.name,
            "product": str(self.product),
            "salt": str(self.salt),
            "chain_id": self.ledger.chain_id,
            "contract": str(self.ledger.contract),
            "hardware": list(self.hardware),
            "signing_key": "0x" + self.signing_secret.hex(),
            "class_keys": [
                {"epoch": key.epoch, "private_key": "0x" + key.secret.hex()}
                for key in self.class_keys
            ],
        }

    @classmethod
    def from_json(cls, text: dict[str, Any]) -> ProductKeys:
        """The inverse of `to_json`; raises KeyError, TypeError, ValueError or `Malformed`."""
        if text["format"] != PRODUCT_FORMAT:
            raise ValueError(f"its format is {text['format']!r}")
        low, high = text["hardware"]
        return cls(
            name=str(text["name"]),
            product=ProductId.parse(text["product"]),
            salt=Digest.parse(text["salt"]),
            ledger=Ledger(int(text["chain_id"]), Address.parse(text["contract"])),
            hardware=(int(low), int(high)),
            signing_secret=secret_of(text["signing_key"]),
            class_keys=tuple(
                ClassKey(int(key["epoch"]), secret_of(key["private_key"]))
                for key in text["class_keys"]
            ),
        )


class Keyring:
    """The key files under one folder."""

    def __init__(self, folder: Path) -> None:
        """``folder``: ``DIR/publisher``; it need not exist yet."""
        self.folder = folder

    def account(self, name: str) -> Account:
        """The account called ``name``; `Misuse` if there is none."""
        path = self._account_file(name)
        if not path.exists():
            raise Misuse(
                "no-such-key",
                f"no key of {name!r} used",
                f"{path} is not there",
                f"name one of: {', '.join(self.account_names()) or 'nobody has a key yet'}",
            )
        with readable(path) as text:
            account = Account(name, Address.parse(text["address"]), secret_of(text["private_key"]))
            if address_of(account.secret) != account.address:
                raise ValueError("its address is not that of its private key")
        return account

    def account_names(self) -> list[str]:
        """Who has a key here."""
        return sorted(path.stem for path in (self.folder / "approvers").glob("*.json"))

    def ensure_account(self, name: str, entropy: Entropy) -> Account:
        """The account called ``name``, drawn now if there is none."""
        path = self._account_file(name)
        if not path.exists():
            secret = draw_secp256k1(entropy)
            content = {"address": str(address_of(secret)), "private_key": "0x" + secret.hex()}
            self._write(path, content)
        return self.account(name)

    def product(self, name: str) -> ProductKeys:
        """The keys of the product called ``name``; `Misuse` if they are not here."""
        path = self._product_file(name)
        if not path.exists():
            raise Misuse(
                "no-such-product",
                f"no keys of product {name!r} used",
                f"{path} is not there",
                "create it with `firmledger product create`, or name the directory with -C",
            )
        with readable(path) as text:
            return ProductKeys.from_json(text)

    def has_product(self, name: str) -> bool:
        """Whether keys of that product are here."""
        return self._product_file(name).exists()

    def products(self) -> list[ProductKeys]:
        """All products whose keys are here, by name."""
        names = sorted(path.stem for path in (self.folder / "products").glob("*.json"))
        return [self.product(name) for name in names]

    def draw_product(
        self,
        name: str,
        *,
        creator: Address,
        ledger: Ledger,
        hardware: tuple[int, int],
        entropy: Entropy,
    ) -> ProductKeys:
        """New keys for a product ``creator`` will create; written before anyone hears of it."""
        salt = Digest(entropy(32))
        keys = ProductKeys(
            name=name,
            product=product_id(creator, salt),
            salt=salt,
            ledger=ledger,
            hardware=hardware,
            signing_secret=entropy(32),
            class_keys=(ClassKey(1, draw_p256(entropy)),),
        )
        self._write(self._product_file(name), keys.to_json())
        return keys

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        write_key_file(self.folder, path, content)

    def _account_file(self, name: str) -> Path:
        return self.folder / "approvers" / (check_name(name, "key name") + ".json")

    def _product_file(self, name: str) -> Path:
        return self.folder / "products" / (check_name(name, "product name") + ".json")


def address_of(secret: bytes) -> Address:
    """The account of a secp256k1 private key; ValueError if it is no key."""
    return approvals.account_of(PrivateKey(secret).public_key)


def draw_secp256k1(entropy: Entropy) -> bytes:
    """A secp256k1 private key; draws again in the one case of 2**128 where it is none."""
    while True:
        secret = entropy(32)
        try:
            address_of(secret)
        except ValueError:
            continue
        return secret


def draw_p256(entropy: Entropy) -> bytes:
    """A P-256 private scalar; draws again in the one case of 2**32 where it is none."""
    while True:
        secret = entropy(32)
        if 0 < int.from_bytes(secret, "big") < _P256_ORDER:
            return secret
