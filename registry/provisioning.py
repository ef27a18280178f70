"""What a device is given before it leaves: the trust file, and the class keys beside it.

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

from protocol.errors import Unreachable
from protocol.ids import Address, Hash, KeyId
from protocol.trustfile import ClassKey, ClassKeys, TrustFile
from registry.files import whole_file
from registry.keys import ProductKeys


def trust_file(
    keys: ProductKeys, status: Any, active: Sequence[bytes], registry: str
) -> TrustFile:
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
