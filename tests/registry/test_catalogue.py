"""The catalogue, filled from the real contract on the embedded ledger."""

from __future__ import annotations

from pathlib import Path

from protocol.ids import Digest, Version
from protocol.ledger import Status
from protocol.records import Product
from registry.catalogue import Catalogue
from registry.index import Index
from registry.store import CATALOGUE, REGISTRY, open_database
from tests.registry.scene import SALT, Scene, governance, terms


def followed(scene: Scene, folder: Path) -> Catalogue:
    folder.mkdir()
    engine = open_database(folder / "catalogue.sqlite", CATALOGUE, durable=False)
    catalogue = Catalogue(engine)
    orphans = open_database(folder / "registry.sqlite", REGISTRY, durable=True)
    Index(scene.chain, catalogue, orphans, start=scene.deployed_at).catch_up()
    return catalogue


def test_what_was_published_is_found_by_id_version_and_image(scene: Scene, tmp_path: Path) -> None:
    scene.act(scene.fee, "createProduct", SALT, governance())
    wanted = terms(scene.product)
    receipt = scene.act(scene.fee, "publish", Product(governance()), wanted, scene.agreed(wanted))
    catalogue = followed(scene, tmp_path / "c")

    found = catalogue.release(scene.product, 1)
    assert found.terms == wanted
    assert found.word.status == Status.ACTIVE
    assert found.published.tx == receipt.tx
    assert found.final
    assert catalogue.release_by_version(scene.product, Version.parse("1.0.0")) == found
    assert catalogue.releases_by_image(Digest(wanted.image_digest)) == [found]
    assert catalogue.published(scene.product, wanted.hash_struct()) == found
    entry = catalogue.product(scene.product)
    assert entry.record.head.latest_release == 1
    (slot,) = scene.chain.read(
        __import__("registry.ports", fromlist=["Call"]).Call("productSlot", (scene.product,))
    )
    assert slot == scene.ledger.product_slot(scene.product, entry.record, scene.clock.time)
