"""Messages that are executed on a state and forgotten, and reads of accounts.

Guarantees: nothing is written anywhere; the price of gas is 0, so that the asking account needs no
funds for it.

Rules: a `Meter` bounds what one request may run altogether, tries of an estimate included; whoever
asks from outside gets a small one.

Not done here: which state, and which time, is meant (see `methods`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, cast

from eth.abc import ComputationAPI, SignedTransactionAPI
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.exceptions import Revert
from eth.vm.forks.paris import ParisVM
from eth.vm.spoof import SpoofTransaction
from eth_utils.exceptions import ValidationError

from protocol.errors import LedgerRefused, Refused
from registry.depth import deeply
from registry.embedded.execution import Nodes, Surroundings, new_state
from registry.embedded.sealing import BLOCK_GAS


@dataclass(frozen=True, slots=True)
class Call:
    """A message that is executed and forgotten; ``to`` None creates a contract."""

    sender: bytes
    to: bytes | None
    data: bytes
    value: int = 0
    gas: int = BLOCK_GAS


class Meter:
    """Gas that one request, or batch, may still use: ``each`` at once, ``total`` altogether."""

    def __init__(self, each: int = BLOCK_GAS, total: int = sys.maxsize) -> None:
        self.each, self._left = each, total

    def allowed(self, asked: int) -> int:
        """How much of the gas ``asked`` for may be used now; `Refused` ``gas-budget`` if none."""
        if self._left <= 0:
            raise Refused(
                "gas-budget",
                "call refused",
                "this request has used the gas that one request may use",
                "ask less at once",
            )
        return min(asked, self.each, self._left)

    def spend(self, used: int) -> None:
        """Notes what was used."""
        self._left -= used


def call(nodes: Nodes, root: bytes, around: Surroundings, message: Call, meter: Meter) -> bytes:
    """What ``message`` returns on the state ``root``.

    `LedgerRefused` ``execution-reverted`` with ``data['output']`` when the contract refuses,
    `Refused` when it cannot run at all (gas, funds, invalid instruction).
    """
    computation, _gas = _execute(nodes, root, around, message, meter)
    _raise_failure(computation)
    return bytes(computation.output)


def estimate(nodes: Nodes, root: bytes, around: Surroundings, message: Call, meter: Meter) -> int:
    """A gas limit at which ``message`` succeeds, within 1/64 of the smallest; errors as `call`."""
    message = replace(message, gas=min(message.gas, meter.each))
    computation, gross = _execute(nodes, root, around, message, meter)
    _raise_failure(computation)

    def suffices(gas: int) -> bool:
        attempt = replace(message, gas=gas)
        try:
            return not _execute(nodes, root, around, attempt, meter)[0].is_error
        except Refused as refusal:
            if refusal.reason == "intrinsic-gas":
                return False
            raise

    low, high = gross - 1, message.gas
    # What it took, plus what EIP-150 holds back from inner calls, is nearly always enough.
    for likely in (gross, (gross + 2_300) * 64 // 63):
        if likely < high and suffices(likely):
            return likely
        low = max(low, min(likely, high) - 1)
    while high - low > max(1, high // 64):
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


class Accounts:
    """Reads accounts at one state root; absent accounts read as empty."""

    def __init__(self, nodes: Nodes, root: bytes) -> None:
        self._state = new_state(nodes, root, Surroundings(0, 0, 0, bytes(20)))

    def nonce(self, address: bytes) -> int:
        """Transactions sent (or contracts created) by ``address`` so far."""
        return int(self._state.get_nonce(cast(Any, address)))

    def balance(self, address: bytes) -> int:
        """Wei held by ``address``."""
        return int(self._state.get_balance(cast(Any, address)))

    def code(self, address: bytes) -> bytes:
        """Runtime code at ``address``."""
        return bytes(self._state.get_code(cast(Any, address)))

    def storage(self, address: bytes, slot: int) -> int:
        """The word in ``slot`` (0 .. 2**256-1) of ``address``."""
        return int(self._state.get_storage(cast(Any, address), slot))


def _execute(
    nodes: Nodes, root: bytes, around: Surroundings, message: Call, meter: Meter
) -> tuple[ComputationAPI, int]:
    """The computation and its gross gas (refunds not deducted); its state is thrown away."""
    message = replace(message, gas=meter.allowed(message.gas))
    state = new_state(nodes, root, around)
    unsigned = ParisVM.get_transaction_builder().create_unsigned_transaction(
        nonce=state.get_nonce(cast(Any, message.sender)),
        gas_price=0,
        gas=message.gas,
        to=cast(Any, CREATE_CONTRACT_ADDRESS if message.to is None else message.to),
        value=message.value,
        data=message.data,
    )
    transaction = cast(SignedTransactionAPI, SpoofTransaction(unsigned, from_=message.sender))
    if message.gas < unsigned.intrinsic_gas:
        raise Refused(
            "intrinsic-gas",
            "call refused",
            f"{message.gas} gas is below the intrinsic cost of {unsigned.intrinsic_gas}",
            "allow more gas",
        )
    try:
        computation = deeply(lambda: state.apply_transaction(transaction))
    except ValidationError as refusal:
        raise Refused(
            "cannot-execute", "call refused", str(refusal), "check the sender's funds and the value"
        ) from refusal
    gross = unsigned.intrinsic_gas + computation.get_gas_used()
    meter.spend(gross)
    return computation, gross


def _raise_failure(computation: ComputationAPI) -> None:
    if not computation.is_error:
        return
    if isinstance(computation.error, Revert):
        raise LedgerRefused(
            "execution-reverted",
            "call refused",
            "the contract reverted it",
            "decode the revert data with the contract's ABI",
            output=bytes(computation.output),
        )
    raise Refused(
        "execution-failed",
        "call refused",
        f"{type(computation.error).__name__}: {computation.error}",
        "check the gas limit and that the target is the contract meant",
    )
