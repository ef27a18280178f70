"""Recovery keys, at the publisher's side: drawn once per product, and what they sign.

Layout, under ``DIR/publisher/recovery``:

======================  ===========================================================================
``NAME-N.json``         one private key (Ed25519, 0600); to be taken away, each to another place
``NAME.public.json``    threshold and public keys; what trust files are written from
======================  ===========================================================================

Guarantees: a product's keys are drawn once: devices that were given them hold by nothing else. An
interrupted drawing goes on with the keys that are there.

Rules: a key signs wherever it lies, without a network: a signature needs the private key's file and
the statement, no other.

Not here: what a statement says and who believes it (`protocol.reanchor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol import cose
from protocol.bundle import View
from protocol.errors import LocalFault, Misuse
from protocol.ids import Address, Hash
from protocol.reanchor import MAX_REANCHOR_BYTES, Reanchor, Statement
from protocol.records import Ledger
from registry.files import whole_file
from registry.key_files import readable, secret_of, write_key_file
from registry.keys import Entropy, ProductKeys

FORMAT = "firmledger-recovery-keys-1"
KEY_FORMAT = "firmledger-recovery-key-1"
MAX_KEYS = 16


@dataclass(frozen=True, slots=True)
class RecoverySet:
    """``threshold`` of ``keys`` (COSE_Keys in lower-case hex, as trust files have them)."""

    threshold: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """One private key; ``product`` is the id it is for, ``threshold`` how many must sign."""

    path: Path
    product: str
    threshold: int
    signer: cose.Signer


def known(folder: Path, product: ProductKeys) -> RecoverySet | None:
    """The keys that were drawn for a product, under ``folder`` (``DIR/publisher``)."""
    path = _public_file(folder, product.name)
    if not path.exists():
        return None
    with readable(path) as text:
        if text["format"] != FORMAT or text["product"] != str(product.product):
            raise ValueError("it is of another product or kind")
        found = RecoverySet(int(text["threshold"]), tuple(str(key) for key in text["keys"]))
        for key in found.keys:
            cose.public_key_from_bytes(bytes.fromhex(key))
        if not 1 <= found.threshold <= len(found.keys) <= MAX_KEYS:
            raise ValueError("its threshold is not within its keys")
    return found


def draw(
    folder: Path, product: ProductKeys, threshold: int, count: int, entropy: Entropy
) -> RecoverySet:
    """Keys for a product that has none; `Misuse` for a threshold that cannot be."""
    if not 1 <= threshold <= count <= MAX_KEYS:
        raise Misuse(
            "bad-threshold",
            f"no recovery keys of {product.name} drawn",
            f"{threshold} of {count} cannot be; there may be {MAX_KEYS} keys",
            "choose like 2-of-3",
        )
    keys = []
    for number in range(1, count + 1):
        path = folder / "recovery" / f"{product.name}-{number}.json"
        if not path.exists():
            content = {
                "format": KEY_FORMAT,
                "product": str(product.product),
                "threshold": threshold,
                "private_key": "0x" + entropy(32).hex(),
            }
            write_key_file(folder, path, content)
        public = read_key(path).signer.public
        keys.append(cose.public_key_to_bytes(public).hex())
    made = {
        "format": FORMAT,
        "product": str(product.product),
        "threshold": threshold,
        "keys": keys,
    }
    write_key_file(folder, _public_file(folder, product.name), made)
    return RecoverySet(threshold, tuple(keys))


def find_key(folder: Path, name: str, text: str) -> RecoveryKey:
    """The key meant by its number here, or by the path of its file."""
    numbered = text.isascii() and text.isdigit()
    path = folder / "recovery" / f"{name}-{text}.json" if numbered else Path(text)
    if not path.is_file():
        raise Misuse(
            "no-such-key",
            f"recovery key {text[:80]!r} not used",
            f"{path} is not there",
            "give the number of a key under publisher/recovery, or the path of its file",
        )
    return read_key(path)


def read_key(path: Path) -> RecoveryKey:
    """The private key in a file."""
    with readable(path) as text:
        if text["format"] != KEY_FORMAT:
            raise ValueError("it is no recovery key")
        signer = cose.signer(cose.ed25519_private_key(secret_of(text["private_key"])))
        return RecoveryKey(path, str(text["product"]), int(text["threshold"]), signer)


def statement_of(product: ProductKeys, status: Any, view: View, sequence: int) -> Reanchor:
    """What is to be signed: the ledger of /v1/status, at the block that was proved under it."""
    validators = sorted(Address.parse(address) for address in status["validators"])
    return Reanchor(
        Statement(
            product_id=product.product,
            sequence=sequence,
            ledger=Ledger(int(status["chain_id"]), Address.parse(status["contract"])),
            code_hash=Hash.parse(status["code_hash"]),
            validators=tuple(validators),
            height=view.number,
            time=view.timestamp,
        )
    )


def signed(statement: Reanchor, key: RecoveryKey, among: RecoverySet | None) -> Reanchor:
    """With this key's signature; ``among``: the product's keys, where they are known."""
    product = str(statement.statement.product_id)
    listed = cose.public_key_to_bytes(key.signer.public).hex()
    if key.product != product or (among is not None and listed not in among.keys):
        raise Misuse(
            "unknown-recovery-key",
            "statement not signed",
            f"{key.path} is no recovery key of product {product}",
            "name one that was drawn with `firmledger product trust`",
        )
    return statement.signed(key.signer)


def open_statement(path: Path) -> Reanchor:
    """A statement with the signatures it has so far; `Misuse` or `Malformed` if it is none."""
    try:
        with path.open("rb") as file:
            return Reanchor.decode(file.read(MAX_REANCHOR_BYTES + 1))
    except FileNotFoundError:
        raise Misuse(
            "no-such-file",
            f"{path} not signed",
            "it is not there",
            "write one with `firmledger product reanchor -o`",
        ) from None
    except OSError as fault:
        raise LocalFault("file-unreadable", f"{path} not read", str(fault), "check it") from fault


def save(statement: Reanchor, path: Path) -> None:
    """Writes the statement's file, in one step."""
    with whole_file(path) as file:
        file.write(statement.encode())


def _public_file(folder: Path, name: str) -> Path:
    return folder / "recovery" / f"{name}.public.json"
