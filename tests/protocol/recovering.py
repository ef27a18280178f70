"""Recovery keys and the statements they sign; all keys are test vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from protocol import cose
from protocol.cose import Signer
from protocol.digests import sha256
from protocol.reanchor import Reanchor, Statement
from protocol.trustfile import TrustFile
from tests.protocol.published import LEDGER, NOW, PRODUCT_ID
from tests.protocol.sealed import CODE_HASH, addresses, validators

KEYS: tuple[Signer, ...] = (
    cose.signer(cose.ed25519_private_key(sha256(b"test vector: recovery key 0"))),
    cose.signer(cose.p256_private_key(sha256(b"test vector: recovery key 1"))),
    cose.signer(cose.ed25519_private_key(sha256(b"test vector: recovery key 2"))),
)
STRANGER = cose.signer(cose.ed25519_private_key(sha256(b"test vector: no recovery key")))
NEW_GROUP = validators(4, start=200)
STATEMENT = Statement(
    product_id=PRODUCT_ID,
    sequence=1,
    ledger=LEDGER,
    code_hash=CODE_HASH,
    validators=addresses(NEW_GROUP),
    height=50,
    time=NOW + 1000,
)


def signed(statement: Statement = STATEMENT, keys: Sequence[Signer] = KEYS[:2]) -> bytes:
    """A statement as the keys' holders would have signed it, one after the other."""
    made = Reanchor(statement)
    for key in keys:
        made = made.signed(key)
    return made.encode()


def recovery_keys(keys: Sequence[Signer] = KEYS) -> tuple[str, ...]:
    return tuple(cose.public_key_to_bytes(key.public).hex() for key in keys)


def trust_file(threshold: int = 2, keys: Sequence[Signer] = KEYS, **members: object) -> TrustFile:
    """The trust file of the product that `tests.protocol.published` tells of."""
    made = TrustFile(
        chain_id=LEDGER.chain_id,
        contract=LEDGER.contract,
        code_hash=CODE_HASH,
        validators=addresses(validators(4)),
        min_height=3,
        product_id=PRODUCT_ID,
        product_name="thermostat",
        signing_keys=(),
        max_age=3600,
        recovery_threshold=threshold,
        recovery_keys=recovery_keys(keys),
        registries=("http://127.0.0.1:8700",),
        embedded=False,
    )
    return replace(made, **members)  # type: ignore[arg-type]
