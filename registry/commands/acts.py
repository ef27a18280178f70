"""What may become of a published release: halt and attest by one person, resume and revoke by many.

One person's act is a transaction of their own, signed here and sent to the ledger directly: the
contract knows them as its sender. What M of N decide is signatures, which the registry's account
may send.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocol.errors import FirmledgerError
from protocol.ids import Version
from registry.commands.desk import SETTLE_SECONDS, Desk, Json, answer, desk_of

if TYPE_CHECKING:
    from protocol.ids import ProductId
    from protocol.records import Action, Product, Release
    from registry.client import Service
    from registry.keys import Account
    from registry.ports import Call, Receipt

ACT_SECONDS = 60.0
DECISION_SECONDS = 3600
STALE = ("StaleProduct", "StaleRelease")
TRIES = 3
FOLLOW_LOOKS, FOLLOW_PAUSE = 50, 0.2

Product_ = Annotated[str, typer.Argument(metavar="PRODUCT", help="The product's name or id.")]
Version_ = Annotated[str, typer.Argument(metavar="VERSION", help="Like 1.4.0.")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="Whose key signs.")]
AsMany = Annotated[list[str], typer.Option("--as", metavar="NAME", help="Whose keys sign.")]


def halt(
    context: typer.Context,
    product: Product_,
    version: Version_,
    name: As,
    reason: Annotated[str, typer.Option(help="For people; at most 256 bytes.")],
    as_json: Json = False,
) -> None:
    """Halt a release at once; one guardian does, with a transaction of their own."""
    from registry.ports import Call

    def call(product: Product, release: Release, product_id: bytes) -> Call:
        return Call("halt", (product_id, product, release, reason))

    _act(desk_of(context), product, version, name, call, "halted", as_json)


def attest(
    context: typer.Context,
    product: Product_,
    version: Version_,
    name: As,
    kind: Annotated[int, typer.Option(min=0, max=7, help="See docs/spec/commitments.md.")],
    evidence: Annotated[Path, typer.Option(help="The evidence; its SHA-256 goes on the ledger.")],
    as_json: Json = False,
) -> None:
    """Attest that evidence of one kind exists; an auditor does, with a transaction of their own."""
    from protocol.ids import Digest
    from registry.files import digest_of
    from registry.ports import Call

    digest: Digest = digest_of(evidence)

    def call(product: Product, release: Release, product_id: bytes) -> Call:
        return Call("attest", (product_id, product, release, kind, digest))

    _act(desk_of(context), product, version, name, call, None, as_json)


def resume(
    context: typer.Context,
    product: Product_,
    version: Version_,
    names: AsMany,
    as_json: Json = False,
) -> None:
    """Resume a halted release; M of N approvers decide."""
    _decide(desk_of(context), product, version, names, "RESUME", as_json)


def revoke(
    context: typer.Context,
    product: Product_,
    version: Version_,
    names: AsMany,
    as_json: Json = False,
) -> None:
    """Forbid a release for good; M of N approvers decide."""
    _decide(desk_of(context), product, version, names, "REVOKE", as_json)


# -- acts -----------------------------------------------------------------------------------------


def _act(
    desk: Desk, product: str, version: str, name: str, call: Any, awaited: str | None, as_json: bool
) -> None:
    """One person's own transaction, made anew if the records changed under way."""
    account = desk.keyring.account(name)
    with desk.service() as service:
        receipt = own_act(
            desk, service, account, lambda: call(*_records(service, product, version))
        )
        found = release_shown(service, product, version)
    document = {**found, "tx": str(receipt.tx), "gas": receipt.gas_used, "block": receipt.block}
    said = awaited or "attested"
    lines = [
        f"release {found['release_id']} ({found['version']}) {said} by {name}",
        f"tx {receipt.tx}, {receipt.gas_used} gas, block {receipt.block}",
    ]
    answer(document, lines, as_json)


def own_act(desk: Desk, service: Service, who: Account, call: Callable[[], Call]) -> Receipt:
    """A transaction signed by ``who``; the registry has followed its block, or will soon.

    ``call`` makes it from the newest records, and again if they changed under way.
    """
    from registry.signer import KeySigner

    signer, chain = KeySigner(who.secret), desk.chain(service)
    for attempt in range(TRIES):
        try:
            receipt = chain.transact(signer, call(), timeout=ACT_SECONDS)
            break
        except FirmledgerError as error:
            if error.data.get("error") not in STALE or attempt == TRIES - 1:
                raise
    for _ in range(FOLLOW_LOOKS):
        head = service.get("/v1/status")["head"]
        if head and head["number"] >= receipt.block:
            break
        time.sleep(FOLLOW_PAUSE)
    return receipt


def _decide(
    desk: Desk, product: str, version: str, names: list[str], action: str, as_json: bool
) -> None:
    from protocol.ids import ProductId
    from protocol.ledger import StateWord
    from protocol.records import Action

    accounts, chosen = [desk.keyring.account(name) for name in names], Action[action]
    with desk.service(operator=True) as service:
        record, release, product_id = _records(service, product, version)
        halts = StateWord.unpack(release.state.word).halts
        nonce = halts if chosen is Action.RESUME else 0
        which = ProductId(product_id)
        done = decide(service, accounts, which, record, chosen, release.release_id, nonce)
        found = release_shown(service, product, version)
    document = {**found, "tx": done["tx"], "gas": done["gas_used"], "block": done["block"]}
    lines = [
        f"release {found['release_id']} ({found['version']}) is {found['status']} now",
        f"tx {done['tx']}, {done['gas_used']} gas, block {done['block']}",
    ]
    answer(document, lines, as_json)


def decide(
    service: Service,
    accounts: list[Account],
    product: ProductId,
    record: Product,
    action: Action,
    release: int,
    nonce: int,
) -> Any:
    """What these accounts decide, signed, sent by the registry's account and settled."""
    from protocol.ids import Address
    from protocol.records import Decision, Ledger
    from registry.approvals import gather
    from registry.clock import SystemClock

    status = service.get("/v1/status")
    ledger = Ledger(int(status["chain_id"]), Address.parse(status["contract"]))
    # By the later of two clocks: the ledger compares it with the time of its own blocks.
    until = max(SystemClock().now(), status["head"]["timestamp"]) + DECISION_SECONDS
    epoch = record.governance.epoch
    digest = ledger.digest(Decision(product, release, int(action), nonce, epoch, until))
    approvals = gather(digest, until, [account.sign(digest) for account in accounts])
    body = {"action": int(action), "release_id": release, "approvals": approvals.to_json()}
    queued = service.post(f"/v1/products/{product}/decisions", body)
    return service.settled(queued["tx"], SETTLE_SECONDS)


def _records(service: Service, product: str, version: str) -> tuple[Product, Release, bytes]:
    """Product and release as the registry last saw them."""
    from protocol.ids import Hash, ProductId
    from protocol.records import Product as ProductRecord
    from protocol.records import Release as ReleaseRecord
    from protocol.records import State

    found = service.get(f"/v1/products/{product}")
    release = release_shown(service, product, version)
    return (
        ProductRecord.from_json(found["record"]),
        ReleaseRecord(
            release["release_id"],
            Hash.parse(release["terms_hash"]),
            State.from_json(release["state"]),
        ),
        ProductId.parse(found["id"]),
    )


def release_shown(service: Service, product: str, version: str) -> Any:
    """A release as the API shows it."""
    return service.get(f"/v1/products/{product}/releases/{Version.parse(version)}")
