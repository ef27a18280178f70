"""What the registry needs from outside: the ledger it follows, proves from and writes to; blobs.

Rules: a port has few methods and speaks in the types of `protocol`. Drivers are `registry.chain`
and `registry.blobs`, and simulators in ``tests/world``; they raise only the families of
`protocol.errors`, and `Unreachable` means that trying again may help.

Not here: what the records mean (`protocol.records`, `protocol.ledger`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from protocol.errors import LedgerRefused
from protocol.ids import Address, DeviceId, Digest, Hash, ProductId
from protocol.records import Ledger


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block stands; ``timestamp`` in Unix seconds.

    ``validators``: those that a QBFT header lists; none on other chains, and none where it was not
    the chain that was asked.
    """

    number: int
    hash: Hash
    parent: Hash
    timestamp: int
    validators: tuple[Address, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the contract, decoded.

    ``args`` are by the names of IReleaseLedger.sol in snake_case: identifiers as `ProductId`,
    `Hash`, `Digest` or `Address`, structs as `protocol.records` or `registry.approvals.Approvals`,
    numbers as int, ``reason`` as str, ``signers`` as a tuple of `Address`.
    """

    name: str
    args: Mapping[str, Any]
    block: int
    block_hash: Hash
    tx: Hash
    index: int
    """Position within the block."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the contract and its arguments: records, ids, bytes, numbers and text."""

    function: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Fees:
    """What a transaction offers, in wei per gas. ``tip`` is None on chains without a base fee."""

    price: int
    tip: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction in a block."""

    tx: Hash
    block: int
    block_hash: Hash
    succeeded: bool
    gas_used: int
    contract: Address | None = None
    events: Sequence[Event] = field(default=(), compare=False)


class BlockSource(Protocol):
    """The chain as it is followed. Everything is by block hash, so a reorganisation cannot mix."""

    def head(self) -> Block:
        """The newest block."""
        ...

    def finalized(self) -> Block:
        """The newest block the chain itself calls final (tag ``finalized``)."""
        ...

    def block(self, which: int | Hash) -> Block | None:
        """By height on the canonical chain, or by hash; None if there is none."""
        ...

    def events(self, block: Hash) -> Sequence[Event]:
        """The contract's events of one block, in order; `Unreachable` if the block is unknown."""
        ...


class StateSource(Protocol):
    """The chain as it is proved from."""

    ledger: Ledger

    def header(self, block: Hash) -> bytes:
        """The header, RLP, with all its seals; its hash has been compared."""
        ...

    def proof(self, slots: Sequence[Hash], block: Hash) -> Mapping[str, Any]:
        """The answer of ``eth_getProof`` for the contract (EIP-1186)."""
        ...

    def events_between(self, first: int, last: int) -> Iterable[Event]:
        """The contract's events of the canonical blocks ``first`` to ``last``, in order."""
        ...

    def proved_events(self, block: Hash) -> Sequence[Event]:
        """The contract's events of one block, out of receipts that hash to its header's root.

        `Untrusted` ``receipts-mismatch`` if they do not.
        """
        ...

    def code_hash(self) -> Hash:
        """keccak256 of the contract's runtime code."""
        ...


class TransactionSink(Protocol):
    """The chain as it is written to."""

    ledger: Ledger

    def nonce(self, sender: Address) -> int:
        """Transactions of ``sender`` in blocks so far: its next nonce."""
        ...

    def fees(self) -> Fees:
        """What is asked now."""
        ...

    def estimate(self, sender: Address, call: Call) -> int:
        """Gas that ``call`` takes now; `LedgerRefused` if the contract would refuse it."""
        ...

    def encode(self, call: Call) -> bytes:
        """Calldata."""
        ...

    def send(self, raw: bytes) -> Hash:
        """Offers a signed transaction; "already known" is success.

        `Refused` ``nonce-too-low``, ``underpriced`` or ``rejected`` where the node says no.
        """
        ...

    def receipt(self, tx: Hash) -> Receipt | None:
        """What came of it, None while it is in no block."""
        ...

    def why_reverted(
        self, sender: Address, call: bytes, gas: int, receipt: Receipt
    ) -> LedgerRefused:
        """The contract's refusal behind a failed receipt, found by running the call again."""
        ...


class Chain(BlockSource, StateSource, TransactionSink, Protocol):
    """A ledger with all its faces."""


class Signer(Protocol):
    """An account that signs transactions: a key file, or something that never shows its key."""

    @property
    def address(self) -> Address:
        """The account."""
        ...

    def sign(self, transaction: Mapping[str, Any]) -> bytes:
        """The raw signed transaction; fields as in JSON-RPC, numbers as int."""
        ...


class ReceiptLog(Protocol):
    """Device receipts as the registry keeps them, for auditors."""

    def entries(self, product: ProductId, release: int) -> Sequence[bytes]:
        """The receipts (COSE bytes) in the order of the release's log."""
        ...

    def fleet(self, product: ProductId, root: Digest) -> Sequence[bytes] | None:
        """The device ids, ascending, of the fleet with this root; None if it is not known."""
        ...

    def device_key(self, device: DeviceId) -> bytes | None:
        """The device's raw Ed25519 public key (its id is the SHA-256 of it); None if unknown."""
        ...


class BlobSource(Protocol):
    """Blobs as they are read: the address is the SHA-256 of the content."""

    def path(self, digest: Digest) -> Path:
        """A file with the content, for ranged reading; `Misuse` ``unknown-blob``."""
        ...

    def verify(self, digest: Digest) -> int:
        """Hashes it again; its size in bytes, or `LocalFault` ``blob-damaged``."""
        ...

    def __contains__(self, digest: Digest) -> bool: ...

    def __iter__(self) -> Iterator[Digest]: ...
