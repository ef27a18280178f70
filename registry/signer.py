"""Accounts that sign transactions, and the transactions they sign.

Guarantees: a key file that others may read is refused; no key is ever shown or logged.

Not here: nonces, fees and sending (`registry.publish`, `registry.chain`), and approvals
(`registry.approvals`), which are signatures of another kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from protocol.errors import LocalFault, Misuse
from protocol.ids import Address
from protocol.records import Ledger
from registry.depth import read_json
from registry.ports import Fees

MAX_KEY_FILE = 4096


class KeySigner:
    """An account whose private key this process holds."""

    def __init__(self, private_key: bytes) -> None:
        """``private_key``: 32 bytes."""
        self._account: LocalAccount = Account.from_key(private_key)

    @property
    def address(self) -> Address:
        """The account."""
        return Address.parse(self._account.address)

    def sign(self, transaction: Mapping[str, Any]) -> bytes:
        """The raw signed transaction."""
        return bytes(self._account.sign_transaction(dict(transaction)).raw_transaction)


def file_signer(path: Path) -> KeySigner:
    """From ``{"address": "0x…", "private_key": "0x…"}``, mode 0600.

    `Misuse` ``no-key`` if there is none, `LocalFault` ``key-damaged`` or ``key-exposed``.
    """
    try:
        with path.open("rb") as file:
            exposed = file.fileno() and path.stat().st_mode & 0o077
            raw = file.read(MAX_KEY_FILE + 1)
    except FileNotFoundError as error:
        raise Misuse(
            "no-key", "nothing signed", f"there is no key file {path}", "name another account"
        ) from error
    except OSError as fault:
        raise LocalFault(
            "key-unreadable", f"{path} not read", str(fault), "check its owner and permissions"
        ) from fault
    if exposed:
        raise LocalFault(
            "key-exposed", f"{path} refused", "others may read it", f"chmod 600 {path}"
        )
    try:
        members = read_json(raw)
        signer = KeySigner(bytes.fromhex(members["private_key"].removeprefix("0x")))
        if Address.parse(members["address"]) != signer.address:
            raise ValueError("the key is not that of the address")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LocalFault(
            "key-damaged", f"{path} refused", "it is not a key file", "restore it"
        ) from error
    return signer


def transaction(
    ledger: Ledger, to: Address | None, data: bytes, *, nonce: int, gas: int, fees: Fees
) -> dict[str, Any]:
    """The fields to sign; legacy with ``gasPrice`` where the chain has no base fee."""
    fields: dict[str, Any] = {
        "chainId": ledger.chain_id,
        "nonce": nonce,
        "gas": gas,
        "value": 0,
        "data": data,
    }
    if to is not None:
        fields["to"] = bytes(to)
    if fees.tip is None:
        return fields | {"gasPrice": fees.price}
    return fields | {"maxFeePerGas": fees.price, "maxPriorityFeePerGas": fees.tip}
