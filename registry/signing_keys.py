"""The keys that sign a product's manifests: the one drawn with the product, and those after it.

Key 1 lies in ``products/NAME.json``, key N in ``signing/NAME-N.json`` (0600). A key's number is
this publisher's; the ledger knows it by its id.

Guarantees: `draw` gives a key that lies on disk before anyone hears of it, and the same one again
while the ledger knows none of it: an interrupted proposal leaves no key behind.

Not here: which keys the ledger allows (`registry.edits`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from protocol import cose
from protocol.errors import Malformed, Misuse
from protocol.ids import KeyId
from protocol.records import ACTIVE_KEY, MAX_MEMBERS, Governance
from registry.key_files import readable, secret_of, write_key_file
from registry.keys import Entropy, ProductKeys

SIGNING_FORMAT = "firmledger-signing-key-1"


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A private signing key here; ``number`` counts from 1, oldest first."""

    number: int
    secret: bytes

    @property
    def signer(self) -> cose.Signer:
        """Signs manifests."""
        return cose.signer(cose.ed25519_private_key(self.secret))

    @property
    def id(self) -> KeyId:
        """What the ledger calls it."""
        return self.signer.public.id


def held(folder: Path, product: ProductKeys) -> list[HeldKey]:
    """The signing keys of a product under ``folder`` (``DIR/publisher``), oldest first."""
    found = [HeldKey(1, product.signing_secret)]
    for number in range(2, MAX_MEMBERS + 2):
        path = _file(folder, product.name, number)
        if not path.exists():
            break
        with readable(path) as text:
            if text["format"] != SIGNING_FORMAT or text["product"] != str(product.product):
                raise ValueError("it is of another product or kind")
            found.append(HeldKey(number, secret_of(text["private_key"])))
    return found


def draw(folder: Path, product: ProductKeys, known: Collection[bytes], entropy: Entropy) -> HeldKey:
    """A key that is none of ``known``: one drawn before, or a new one."""
    keys = held(folder, product)
    for key in keys:
        if key.id not in known:
            return key
    if len(keys) > MAX_MEMBERS:
        raise Misuse(
            "too-many-keys",
            "no signing key drawn",
            f"there are {len(keys)}, and a product lists {MAX_MEMBERS} for ever",
            "create a new product",
        )
    number = len(keys) + 1
    content = {
        "format": SIGNING_FORMAT,
        "product": str(product.product),
        "private_key": "0x" + entropy(32).hex(),
    }
    write_key_file(folder, _file(folder, product.name, number), content)
    return held(folder, product)[-1]


def named(folder: Path, product: ProductKeys, text: str) -> KeyId:
    """The id of the key meant by its number here, or by its id in hex."""
    if text.isascii() and text.isdigit():
        return _numbered(folder, product, text).id
    try:
        return KeyId.parse(text)
    except Malformed as error:
        raise Misuse(error.reason, error.what, error.why, error.fix) from error


def chosen(
    folder: Path, product: ProductKeys, wanted: str | None, rules: Governance | None
) -> HeldKey:
    """The key to sign a release with: the one ``wanted``, else the newest that is active.

    ``rules``: the governance in effect, None if nobody can be asked; then there may be one only.
    """
    keys = held(folder, product)
    if wanted is not None:
        meant = named(folder, product, wanted)
        fitting = [key for key in keys if key.id == meant]
        why, fix = f"no signing key {wanted} is here", "see `firmledger product keys`"
    elif rules is None:
        fitting = keys if len(keys) == 1 else []
        why = f"{len(keys)} signing keys are here, and no registry says which is active"
        fix = "start the registry, or name one with --signing-key"
    else:
        active = {key.key_id for key in rules.keys if key.valid_through == ACTIVE_KEY}
        fitting = [key for key in keys if key.id in active]
        why = "none of the signing keys here is active on the ledger"
        fix = "add one with `firmledger product propose --add-key new`"
    if not fitting:
        raise Misuse("no-signing-key", f"no release of {product.name} signed", why, fix)
    return fitting[-1]


def _numbered(folder: Path, product: ProductKeys, text: str) -> HeldKey:
    for key in held(folder, product):
        if str(key.number) == text:
            return key
    raise Misuse(
        "no-such-key",
        f"signing key {text[:20]} not used",
        f"no key of that number of {product.name} is here",
        "see `firmledger product keys`, or give its id",
    )


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / "signing" / f"{name}-{number}.json"
