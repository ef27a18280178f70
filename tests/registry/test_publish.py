"""The outbox, against the real contract on the embedded ledger."""

from __future__ import annotations

from protocol.digests import sha256
from protocol.ledger import Status
from registry.catalogue import Catalogue
from registry.index import Index
from registry.intents import Anchor, CreateProduct, Publish
from registry.publish import Outbox
from registry.signer import KeySigner
from registry.store import CATALOGUE, REGISTRY, open_database
from tests.registry.scene import SALT, Scene, governance, terms


class Office:
    """A registry's outbox, indexer and catalogue on a scene."""

    def __init__(self, scene: Scene, signer: KeySigner | None = None) -> None:
        self.engine = open_database(scene.directory / "registry.sqlite", REGISTRY, durable=True)
        self.catalogue = Catalogue(
            open_database(scene.directory / "catalogue.sqlite", CATALOGUE, durable=False)
        )
        self.index = Index(scene.chain, self.catalogue, self.engine, start=scene.deployed_at)
        self.outbox = Outbox(
            self.engine,
            scene.chain,
            self.catalogue,
            signer or scene.fee,
            clock=scene.clock,
            follow=self.index.catch_up,
            holder="office",
            fee_cap=10**9,
            bump_after=60,
        )
        self.rest = scene.rest

    def do(self, key: str, intent: object) -> object:
        row = self.outbox.submit(key, intent)  # type: ignore[arg-type]
        return self.outbox.wait(row, 10, rest=self.rest)


def test_a_release_is_published_through_the_outbox(scene: Scene) -> None:
    office = Office(scene)
    gov = governance(reporters=(scene.fee.address,))
    office.do("product", CreateProduct(SALT, gov))
    wanted = terms(scene.product)
    row = office.do("r1", Publish(wanted, scene.agreed(wanted)))
    print(row)
    first = Anchor(scene.product, 1, 0, 3, sha256(b"root 3"), 2, 1)
    second = Anchor(scene.product, 1, 3, 4, sha256(b"root 4"), 0, 1)
    ids = [office.outbox.submit("a1", first), office.outbox.submit("a2", second)]
    for row_id in ids:
        print(office.outbox.wait(row_id, 10, rest=scene.rest))
    found = office.catalogue.release(scene.product, 1)
    assert (found.word.confirmed, found.word.failed) == (2, 2)
    assert found.word.status == Status.HALTED
