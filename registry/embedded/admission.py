"""Reads a raw transaction and decides whether it may wait for a block at all.

Guarantees: what `admit` returns is canonical RLP of a known type, signed for this chain, and fits a
block; whatever the bytes are, only our own errors come out.

Not checked here: nonce (the pool, against the state) and funds (`Pending.check_funds`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eth.exceptions import UnrecognizedTransactionType
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped,unused-ignore]

from protocol.errors import Malformed, Refused
from protocol.ids import Address, Hash
from registry.embedded.execution import decode_transaction
from registry.embedded.pool import Pending
from registry.embedded.sealing import BLOCK_GAS, STRANGERS_GAS

MAX_RAW = 128 * 1024  # bytes, as in geth; a deployment is under 25 kB
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # of secp256k1
_UNREADABLE = (
    RLPException,
    ValidationError,
    UnrecognizedTransactionType,
    BadSignature,
    ValueError,
    TypeError,
    IndexError,
    RecursionError,  # lists in lists in lists
)


def admit(raw: bytes, chain_id: int) -> Pending:
    """The transaction in ``raw``; `Malformed` if unreadable, `Refused` if not for this chain."""
    if len(raw) > MAX_RAW:
        raise Malformed(
            "oversized-data",
            "transaction refused",
            f"it has {len(raw)} bytes, at most {MAX_RAW} are taken",
            "send less data",
        )
    try:
        transaction: Any = decode_transaction(raw)
        _check_canonical(transaction, raw)
        _check_chain(transaction.chain_id, chain_id)
        _check_gas(transaction)
        transaction.validate()
        return Pending(
            raw=raw,
            hash=Hash(transaction.hash),
            sender=Address(transaction.sender),
            nonce=transaction.nonce,
            gas=transaction.gas,
            fee=transaction.max_fee_per_gas,
            value=transaction.value,
            decoded=transaction,
        )
    except _UNREADABLE as fault:
        raise _unreadable(f"{type(fault).__name__}: {fault}") from fault


def judge_sender(pending: Pending, balance: int) -> Pending:
    """``pending``, marked if its sender has no funds: a stranger, who gets little gas for free.

    `Refused` if a stranger asks for more gas than a halt or a pause takes, or funds do not suffice.
    """
    pending.check_funds(balance)
    if balance > 0:
        return pending
    if pending.gas > STRANGERS_GAS:
        raise Refused(
            "exceeds-free-gas",
            "transaction refused",
            f"gas limit {pending.gas}, an account without funds gets {STRANGERS_GAS}",
            "lower the gas limit, or fund the account",
        )
    return replace(pending, stranger=True)


def _check_canonical(transaction: Any, raw: bytes) -> None:
    # The decoder takes an empty list for a zero: two byte strings would be one transaction. A copy,
    # for the original remembers the bytes it came from.
    if transaction.copy().encode() != raw:
        raise _unreadable("it is not in canonical form")
    # The other s would verify, too, and give the same transaction another hash (EIP-2).
    if transaction.s > HALF_ORDER:
        raise _unreadable("its signature is not in canonical form")


def _check_chain(found: int | None, wanted: int) -> None:
    if found is None:
        raise Refused(
            "unprotected",
            "transaction refused",
            "only replay-protected (EIP-155) ones are taken",
            f"sign it for chain {wanted}",
        )
    if found != wanted:
        raise Refused(
            "wrong-chain",
            "transaction refused",
            f"invalid chain id: have {found}, want {wanted}",
            f"sign it for chain {wanted}",
        )


def _check_gas(transaction: Any) -> None:
    if transaction.gas > BLOCK_GAS:
        raise Refused(
            "exceeds-block-gas",
            "transaction refused",
            f"gas limit {transaction.gas}, a block has {BLOCK_GAS}",
            "lower the gas limit",
        )
    if transaction.gas < transaction.intrinsic_gas:
        raise Refused(
            "intrinsic-gas",
            "transaction refused",
            f"have {transaction.gas}, want {transaction.intrinsic_gas}",
            "raise the gas limit",
        )
    if transaction.max_priority_fee_per_gas > transaction.max_fee_per_gas:
        raise Refused(
            "tip-above-fee",
            "transaction refused",
            "maxPriorityFeePerGas is above maxFeePerGas",
            "lower the tip",
        )


def _unreadable(why: str) -> Malformed:
    return Malformed(
        "transaction-unreadable",
        "transaction refused",
        why,
        "send a signed legacy, access-list or dynamic-fee transaction",
    )
