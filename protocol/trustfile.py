"""The two files a device is provisioned with: ``trust.json`` (public) and its class keys (secret).

Guarantees: what is parsed is complete and in range; `TrustFile.to_bytes` of what was parsed is the
same document. ``trust.json`` pins everything that a bundle must not be asked for: chain, contract,
code, validators, product. Whoever writes it decides whom the device believes.

JSON, not CBOR, because people read and compare these files. Where they lie and with which
permissions is the command lines' business (the keys: 0600).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from protocol import cose
from protocol.bundle import Anchor
from protocol.cose import PublicKey
from protocol.errors import FirmledgerError, Malformed
from protocol.ids import U32_MAX, Address, Hash, KeyId, ProductId
from protocol.records import Ledger

TRUST_FORMAT = "firmledger-trust-1"
CLASS_KEY_FORMAT = "firmledger-class-key-1"
MAX_TRUST_BYTES = 64 * 1024
MAX_AGE_DEFAULT = 24 * 3600
TRUSTING_PERIOD_DEFAULT = 365 * 24 * 3600
"""Cut off for longer, a device is re-anchored rather than believe keys that may have leaked."""
FUTURE_TOLERANCE = 600
"""Seconds by which a header may lead a set clock (docs/spec/trust.md, T8)."""
_MAX_CHAIN_ID = 2**53 - 1
_MAX_NAME, _MAX_REGISTRY = 64, 512


def _refuse(what: str, why: str) -> Malformed:
    return Malformed("bad-trust-file", f"{what} refused", why, "get the file again from its maker")


def _document(data: bytes, what: str, fmt: str, members: set[str]) -> dict[str, Any]:
    if len(data) > MAX_TRUST_BYTES:
        raise _refuse(what, f"it has {len(data)} bytes, the limit is {MAX_TRUST_BYTES}")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise _refuse(what, "it is not JSON, or says a thing twice") from error
    if not isinstance(document, dict) or document.get("format") != fmt:
        raise _refuse(what, f"its format is not {fmt}")
    if document.keys() != members:
        odd = ", ".join(sorted(document.keys() ^ members))
        raise _refuse(what, f"its members are not those of the format: {odd[:120]}")
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members, if no two have one name: of such, readers may see the other one."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


def _integer(value: Any, name: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _refuse("trust file", f"{name} is not an integer of 0 to {most}")
    return value


def _texts(value: Any, name: str, most: int) -> list[str]:
    good = isinstance(value, list) and all(isinstance(v, str) for v in value)
    if not good or len(value) > most:
        raise _refuse("trust file", f"{name} is not a list of at most {most} texts")
    return list(value)


def _text(value: Any, name: str, most: int = 4096) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise _refuse("trust file", f"{name} is not a text of at most {most} characters")
    return value


def _shown(value: Any, name: str, most: int) -> str:
    """A text that is printed beside a device's own words, and so has no control character in it."""
    text = _text(value, name, most)
    if not text.isprintable():
        raise _refuse("trust file", f"{name} has characters in it that are not printed")
    return text


def _recovery_key(text: str) -> PublicKey:
    """The public key in hex of its COSE_Key, in the one spelling that makes duplicates visible."""
    try:
        raw = bytes.fromhex(text)
        if raw.hex() != text:
            raise ValueError
        return cose.public_key_from_bytes(raw)
    except (ValueError, FirmledgerError):
        raise _refuse("trust file", "a recovery key is no COSE_Key in lower-case hex") from None


@dataclass(frozen=True)
class TrustFile:
    """What a device believes before it has seen anything."""

    chain_id: int
    contract: Address
    code_hash: Hash
    validators: tuple[Address, ...]
    min_height: int
    """Proofs of lower blocks are refused from the first day."""
    product_id: ProductId
    product_name: str
    signing_keys: tuple[KeyId, ...]
    """Those active when the file was written, for people; the ledger says which are valid now."""
    max_age: int
    """Seconds after which a proof no longer counts as fresh."""
    recovery_threshold: int
    recovery_keys: tuple[str, ...]
    """COSE_Keys in hex; ``recovery_threshold`` of them can re-anchor. None: no re-anchoring."""
    registries: tuple[str, ...]
    """Addresses to ask first, in order; nothing is believed for coming from one of them."""
    embedded: bool
    """The ledger lives inside one registry: fit for trials, refused by a production device."""
    trusting_period: int = TRUSTING_PERIOD_DEFAULT
    """Seconds since the newest block accepted after which validators are no longer believed; 0: no
    limit. See docs/spec/trust.md."""

    @property
    def recovery_public_keys(self) -> tuple[PublicKey, ...]:
        """``recovery_keys``, read; `Malformed` if one is no key."""
        return tuple(_recovery_key(text) for text in self.recovery_keys)

    @property
    def anchor(self) -> Anchor:
        """What every proof is checked against at first."""
        return Anchor(
            Ledger(self.chain_id, self.contract), self.product_id, self.code_hash, self.validators
        )

    def to_bytes(self) -> bytes:
        """The document, sorted and indented, with a final newline."""
        document = {
            "format": TRUST_FORMAT,
            "chain_id": self.chain_id,
            "contract": str(self.contract),
            "code_hash": str(self.code_hash),
            "validators": [str(v) for v in self.validators],
            "min_height": self.min_height,
            "product": {"id": str(self.product_id), "name": self.product_name},
            "signing_keys": [str(k) for k in self.signing_keys],
            "max_age": self.max_age,
            "trusting_period": self.trusting_period,
            "recovery": {"threshold": self.recovery_threshold, "keys": list(self.recovery_keys)},
            "registries": list(self.registries),
            "embedded": self.embedded,
        }
        return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The trust file in ``data``; `Malformed` if it is anything else."""
        members = {
            *("format", "chain_id", "contract", "code_hash", "validators", "min_height"),
            *("product", "signing_keys", "max_age", "trusting_period"),
            *("recovery", "registries", "embedded"),
        }
        d = _document(data, "trust file", TRUST_FORMAT, members)
        product, recovery = d["product"], d["recovery"]
        if not isinstance(product, dict) or product.keys() != {"id", "name"}:
            raise _refuse("trust file", "product is not {id, name}")
        if not isinstance(recovery, dict) or recovery.keys() != {"threshold", "keys"}:
            raise _refuse("trust file", "recovery is not {threshold, keys}")
        validators = tuple(Address.parse(v) for v in _texts(d["validators"], "validators", 64))
        if not validators or len(set(validators)) != len(validators):
            raise _refuse("trust file", "validators are none, or named twice")
        if not isinstance(d["embedded"], bool):
            raise _refuse("trust file", "embedded is not true or false")
        keys = tuple(_texts(recovery["keys"], "recovery keys", 16))
        for key in keys:
            _recovery_key(key)
        threshold = _integer(recovery["threshold"], "recovery threshold", 16)
        if len(set(keys)) != len(keys):
            raise _refuse("trust file", "a recovery key is named twice")
        if not min(1, len(keys)) <= threshold <= len(keys):
            raise _refuse("trust file", "recovery needs a threshold of 1 to the number of its keys")
        return cls(
            chain_id=_integer(d["chain_id"], "chain_id", _MAX_CHAIN_ID),
            contract=Address.parse(_text(d["contract"], "contract")),
            code_hash=Hash.parse(_text(d["code_hash"], "code_hash")),
            validators=validators,
            min_height=_integer(d["min_height"], "min_height", 2**63 - 1),
            product_id=ProductId.parse(_text(product["id"], "product id")),
            product_name=_shown(product["name"], "product name", _MAX_NAME),
            signing_keys=tuple(
                KeyId.parse(v) for v in _texts(d["signing_keys"], "signing_keys", 16)
            ),
            max_age=_integer(d["max_age"], "max_age", U32_MAX),
            trusting_period=_integer(d["trusting_period"], "trusting_period", U32_MAX),
            recovery_threshold=threshold,
            recovery_keys=keys,
            registries=tuple(
                _shown(v, "a registry", _MAX_REGISTRY)
                for v in _texts(d["registries"], "registries", 16)
            ),
            embedded=d["embedded"],
        )


@dataclass(frozen=True)
class ClassKey:
    """The private key of one epoch of a device class."""

    epoch: int
    kid: str
    """Hex of the key id in the manifest's encryption info."""
    private_key: str
    """PKCS #8 PEM of a P-256 key."""


@dataclass(frozen=True)
class ClassKeys:
    """The secret file beside a trust file: what its devices decrypt payloads with."""

    product_id: ProductId
    epochs: tuple[ClassKey, ...]

    def of_epoch(self, epoch: int) -> ClassKey | None:
        """The key of one epoch, if it is here."""
        return next((key for key in self.epochs if key.epoch == epoch), None)

    def to_bytes(self) -> bytes:
        """The document, sorted and indented, with a final newline."""
        document = {
            "format": CLASS_KEY_FORMAT,
            "product": str(self.product_id),
            "epochs": [
                {"epoch": k.epoch, "kid": k.kid, "private_key": k.private_key} for k in self.epochs
            ],
        }
        return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The class keys in ``data``; `Malformed` if it is anything else."""
        d = _document(data, "class key file", CLASS_KEY_FORMAT, {"format", "product", "epochs"})
        rows = d["epochs"]
        if not isinstance(rows, list) or not 0 < len(rows) <= 64:
            raise _refuse("class key file", "it has no epochs, or more than 64")
        epochs = []
        for row in rows:
            if not isinstance(row, dict) or row.keys() != {"epoch", "kid", "private_key"}:
                raise _refuse("class key file", "an epoch is not {epoch, kid, private_key}")
            epochs.append(
                ClassKey(
                    epoch=_integer(row["epoch"], "epoch", U32_MAX),
                    kid=_text(row["kid"], "kid", 128),
                    private_key=_text(row["private_key"], "private_key"),
                )
            )
        if len({key.epoch for key in epochs}) != len(epochs):
            raise _refuse("class key file", "an epoch comes twice")
        return cls(ProductId.parse(_text(d["product"], "product")), tuple(epochs))
