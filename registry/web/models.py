"""What the API takes and gives, as models: strict, nothing unknown, nothing missing.

The ledger's records are modelled from `protocol.records` itself, in the form of their ``to_json``:
64-bit numbers and wider as decimal strings, bytes as 0x-hex.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from protocol.records import MAX_MEMBERS, Governance, Product, Record, State, Terms
from registry.approvals import Approvals
from registry.fleet import MAX_AT_ONCE
from registry.naming import NAME

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
MAX_ENVELOPE_HEX = 2 + 2 * 8192

Hex32 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Hex20 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]
Uint64 = Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,19})$")]
Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
VersionText = Annotated[str, Field(pattern=r"^\d{1,5}\.\d{1,5}\.\d{1,10}$")]


class Strict(BaseModel):
    """Base of all models."""

    model_config = STRICT


def _model(record: type[Record], known: dict[type[Record], Any]) -> Any:
    """The model of a record's JSON, nested records included."""
    if record not in known:
        hints = typing.get_type_hints(record, include_extras=True)
        members: dict[str, Any] = {}
        for field in dataclasses.fields(record):
            hint = hints[field.name]
            if typing.get_origin(hint) is tuple:
                inner = _member(typing.get_args(hint)[0], known)
                several = types.GenericAlias(list, (inner,))
                members[field.name] = (several, Field(max_length=MAX_MEMBERS))
            else:
                members[field.name] = (_member(hint, known), ...)
        known[record] = create_model(record.__name__, __config__=STRICT, **members)
    return known[record]


def _member(hint: Any, known: dict[type[Record], Any]) -> Any:
    if isinstance(hint, type) and issubclass(hint, Record):
        return _model(hint, known)
    abi: str = hint.__metadata__[0]
    if abi == "bool":
        return bool
    if abi in ("bytes32", "address"):
        return Hex32 if abi == "bytes32" else Hex20
    bits = int(abi.removeprefix("uint"))
    if bits > 32:
        return Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,77})$")]
    return Annotated[int, Field(ge=0, lt=1 << bits)]


_known: dict[type[Record], Any] = {}
if typing.TYPE_CHECKING:

    class TermsModel(BaseModel):
        """`protocol.records.Terms`."""

    class GovernanceModel(BaseModel):
        """`protocol.records.Governance`."""

    class ProductModel(BaseModel):
        """`protocol.records.Product`."""

    class StateModel(BaseModel):
        """`protocol.records.State`."""

    class ApprovalsModel(BaseModel):
        """`registry.approvals.Approvals`."""

else:
    TermsModel = _model(Terms, _known)
    GovernanceModel = _model(Governance, _known)
    ProductModel = _model(Product, _known)
    StateModel = _model(State, _known)
    ApprovalsModel = _model(Approvals, _known)


# -- asked ----------------------------------------------------------------------------------------


class NewProduct(Strict):
    """A product to create; its id is that of (the registry's account, salt)."""

    name: Name
    salt: Hex32
    governance: GovernanceModel


class NewDevice(Strict):
    """A device by its raw Ed25519 public key."""

    public_key: Hex32


class Enrolment(Strict):
    """Devices to add to a product's fleet."""

    devices: Annotated[list[NewDevice], Field(min_length=1, max_length=MAX_AT_ONCE)]


class NewRelease(Strict):
    """A release to publish; its payload is in the store already."""

    envelope: Annotated[str, Field(pattern=r"^0x([0-9a-f]{2})+$", max_length=MAX_ENVELOPE_HEX)]
    signer: Annotated[str, Field(pattern=r"^0x([0-9a-f]{2})+$", max_length=2 + 2 * 128)]
    terms: TermsModel
    epoch: Uint32
    approvals: ApprovalsModel


class NewDecision(Strict):
    """What M of N decided: 1 resume, 2 supersede or 3 revoke a release, 4 unpause (release 0)."""

    action: Annotated[int, Field(ge=1, le=4)]
    release_id: Uint32
    approvals: ApprovalsModel


class NewAmendment(Strict):
    """A change of governance that M of N signed, until ``approvals.valid_until``."""

    next: GovernanceModel
    approvals: ApprovalsModel


class Poll(Strict):
    """What a device says of itself when it asks; numbers in decimal."""

    model_config = ConfigDict(strict=False)  # in an address, numbers are text

    device: Annotated[str, Field(pattern=r"^(0x)?[0-9a-fA-F]{64}$")]
    version: Annotated[int, Field(ge=0, lt=1 << 64)]
    counter: Annotated[int, Field(ge=0, lt=1 << 32)]
    hardware: Annotated[int, Field(ge=0, lt=1 << 32)]
    height: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    wait: Annotated[int, Field(ge=0, le=55)] = 0


# -- answered -------------------------------------------------------------------------------------


class BlockView(Strict):
    """A block."""

    number: int
    hash: Hex32
    timestamp: int


class PlaceView(Strict):
    """Where on the chain something happened."""

    block: int
    timestamp: int
    tx: Hex32


class FleetView(Strict):
    """The fleet that the ledger has."""

    root: Hex32
    size: int
    epoch: int


class ProductView(Strict):
    """A product; ``enrolled``: devices enrolled here, on the ledger yet or not."""

    id: Hex32
    name: str | None
    creator: Hex20
    created: PlaceView
    record: ProductModel
    pending: GovernanceModel | None
    fleet: FleetView | None
    enrolled: int


class ReleaseView(Strict):
    """A release; ``open_bps``: the share of the fleet whose turn has come at the head."""

    product: Hex32
    release_id: int
    version: VersionText
    status: str
    superseded: bool
    terms: TermsModel
    terms_hash: Hex32
    state: StateModel
    confirmed: int
    failed: int
    receipts: int
    halts: int
    attested: int
    open_bps: int
    epoch: int
    approvers: list[Hex20]
    published: PlaceView
    final: bool
    static: Hex32 | None
    payload: Hex32 | None
    payload_size: int | None


class TxView(Strict):
    """An act in the outbox. ``status``: queued, signed, sent, mined (final) or failed (final)."""

    id: int
    status: str
    tx: Hex32 | None
    block: int | None
    gas_used: int | None
    attempts: int
    error: dict[str, Any] | None


class QueuedView(Strict):
    """What was queued, and where to ask about it: ``/v1/tx/{tx}``."""

    product: Hex32
    tx: int


class ProductList(Strict):
    """All products."""

    products: list[ProductView]


class ReleaseList(Strict):
    """All releases of a product, oldest first."""

    releases: list[ReleaseView]


class StatusView(Strict):
    """What this registry is and how far it has come."""

    version: str
    profile: str
    embedded: bool
    notice: str | None
    chain_id: int
    contract: Hex20
    code_hash: Hex32
    deployed_at: int
    head: BlockView | None
    final_height: int
    validators: list[Hex20]
    max_age: int
    sender: Hex20
    unsettled: int


class BlobView(Strict):
    """A stored blob."""

    digest: Hex32
    size: int


class TakenView(Strict):
    """What became of a receipt."""

    leaf: Hex32
    enrolled: bool
    anchored: bool
