"""The catalogue, filled from the real contract on the embedded ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.digests import sha256
from protocol.errors import LocalFault, Misuse
from protocol.ids import Digest, Hash, ProductId, Version
from protocol.ledger import Status
from protocol.records import Product
from registry.catalogue import Catalogue
from registry.index import Index
from registry.ports import Call
from registry.standing import Standing
from registry.store import CATALOGUE, REGISTRY, open_database, reading, writing
from registry.tables import MARKS
from tests.registry.scene import Scene
from tests.registry.story import Story

UNKNOWN = ProductId(bytes(31) + b"\1")


def followed(scene: Scene, name: str) -> Catalogue:
    folder = scene.directory / name
    folder.mkdir()
    catalogue = Catalogue(open_database(folder / "c.sqlite", CATALOGUE, durable=False))
    orphans = open_database(folder / "r.sqlite", REGISTRY, durable=True)
    Index(scene.chain, catalogue, orphans, start=scene.deployed_at).catch_up()
    orphans.dispose()
    return catalogue


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    scene = Scene(tmp_path_factory.mktemp("story"))
    try:
        made = Story(scene)
        made.tell()
        yield made
    finally:
        scene.close()


@pytest.fixture(scope="module")
def catalogue(story: Story) -> Iterator[Catalogue]:
    made = followed(story.scene, "catalogue")
    yield made
    made.engine.dispose()


def test_a_catalogue_is_rebuilt_byte_for_byte(story: Story, catalogue: Catalogue) -> None:
    again = followed(story.scene, "again")
    assert catalogue.dump() == again.dump()
    assert len(catalogue.dump()) > 10_000
    again.engine.dispose()


def test_its_records_are_those_the_contract_commits_to(story: Story, catalogue: Catalogue) -> None:
    """At the head, and at every height on the way."""
    scene = story.scene
    for height in range(scene.deployed_at + 1, scene.chain.head().number + 1):
        block = scene.chain.block(height)
        assert block is not None
        entry = catalogue.product(scene.product, at=height, now=block.timestamp)
        expected = scene.ledger.product_slot(scene.product, entry.record, block.timestamp)
        releases = catalogue.releases(scene.product, at=height)
        answer = node_words(scene, height, len(releases))
        assert answer[0] == expected, height
        for release, word in zip(releases, answer[1:], strict=True):
            slot = scene.ledger.release_slot(
                scene.product, release.release_id, release.terms_hash, release.state
            )
            assert word == slot, (height, release.release_id)


def node_words(scene: Scene, height: int, releases: int) -> list[bytes]:
    """What the contract itself answers at that height."""
    calls = [Call("productSlot", (scene.product,))]
    calls += [Call("releaseSlot", (scene.product, n + 1)) for n in range(releases)]
    words = []
    for call in calls:
        request = {
            "to": str(scene.contract),
            "data": "0x" + scene.chain.encode(call).hex(),
        }
        words.append(bytes.fromhex(scene.chain._node.ask("eth_call", request, hex(height))[2:]))
    return words


def test_a_release_is_found_by_id_version_image_manifest_and_terms(
    story: Story, catalogue: Catalogue
) -> None:
    which = story.scene.product
    first, second = catalogue.releases(which)
    assert (first.release_id, second.release_id) == (1, 2)
    assert catalogue.release(which, 2) == second
    assert catalogue.release_by_version(which, Version.parse("1.1.0")) == second
    assert catalogue.releases_by_image(Digest(second.terms.image_digest)) == [second]
    assert catalogue.releases_by_manifest(Digest(second.terms.manifest_digest)) == [second]
    assert catalogue.published(which, second.terms_hash) == second
    assert second.record == story.releases[2]
    assert (second.word.status, first.word.status) == (Status.ACTIVE, Status.REVOKED)
    assert first.word.superseded
    assert second.final


def test_what_it_does_not_know_is_said(story: Story, catalogue: Catalogue) -> None:
    which = story.scene.product
    with pytest.raises(Misuse) as refused:
        catalogue.product(UNKNOWN)
    assert refused.value.reason == "unknown-product"
    for ask in (
        lambda: catalogue.release(which, 3),
        lambda: catalogue.release(UNKNOWN, 1),
        lambda: catalogue.release_by_version(which, Version.parse("9.0.0")),
        lambda: catalogue.release(which, 1, at=story.scene.deployed_at + 1),
    ):
        with pytest.raises(Misuse) as refused:
            ask()
        assert refused.value.reason == "unknown-release"
    assert catalogue.releases(UNKNOWN) == []
    assert catalogue.releases_by_image(sha256(b"nothing")) == []
    assert catalogue.published(which, Hash(bytes(32))) is None


def test_events_come_in_order_and_in_pages(story: Story, catalogue: Catalogue) -> None:
    which = story.scene.product
    everything = catalogue.events(which, limit=100)
    paged, after = [], (-1, -1)
    while page := catalogue.events(which, after=after, limit=4):
        paged += page
        after = (page[-1].place.block, page[-1].place.index)
    assert paged == everything
    assert everything[0].name == "ProductCreated"
    assert catalogue.events(which, newest=True, limit=3) == everything[-3:]
    halts = catalogue.events(which, names=("ReleaseHalted",), limit=10)
    assert [(h.release_id, h.args["reason"]) for h in halts] == [
        (2, "halting rule met"),
        (1, "field returns"),
    ]
    assert all(event.release_id == 2 for event in catalogue.events(which, release_id=2, limit=9))
    assert len(catalogue.events(limit=100)) == len(everything) + 1  # one event is of no product


def test_a_product_shows_its_fleet_and_what_waits(story: Story, catalogue: Catalogue) -> None:
    (entry,) = catalogue.products()
    assert entry == catalogue.product(story.scene.product)
    assert entry.fleet is not None and (entry.fleet.size, entry.fleet.epoch) == (6, 1)
    assert entry.creator == story.scene.fee.address
    assert entry.pending is None
    assert entry.record == story.product


def test_a_change_that_waits_is_spelled_out_when_its_time_has_come(scene: Scene) -> None:
    slow = Story(scene, governance_delay=3_600)
    slow.amend(threshold=1)
    catalogue = followed(scene, "slow")
    due = slow.product.effective_at
    before = catalogue.product(scene.product, now=due - 1)
    then = catalogue.product(scene.product, now=due)
    assert (before.record.governance.threshold, then.record.governance.threshold) == (2, 1)
    assert before.pending == then.record.governance
    assert then.pending is None
    assert before.record.other == then.record.governance.hash_struct()
    assert then.record.other == before.record.governance.hash_struct()
    for entry, now in ((before, due - 1), (then, due)):
        slot = scene.ledger.product_slot(scene.product, entry.record, now)
        assert slot == scene.chain.read(Call("productSlot", (scene.product,)))[0]
    assert Standing.from_text(then.standing.to_text()) == then.standing
    assert Product(then.standing.current).governance == before.record.governance
    catalogue.engine.dispose()


def test_a_writer_takes_the_lock_at_once_and_a_reader_sees_one_moment(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "c.sqlite", CATALOGUE, durable=False)
    with reading(engine) as reader:
        assert reader.execute(MARKS.select()).all() == []
        with writing(engine) as writer:
            writer.execute(MARKS.insert().values(name="x", value=1))
        assert reader.execute(MARKS.select()).all() == []
    with pytest.raises(ZeroDivisionError), writing(engine) as writer:
        writer.execute(MARKS.insert().values(name="y", value=1 // 0))
    with reading(engine) as reader:
        assert [row.name for row in reader.execute(MARKS.select())] == ["x"]


def test_a_database_that_is_none_is_a_local_fault(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_bytes(b"this is no database, not at all" * 100)
    with pytest.raises(LocalFault) as fault:
        open_database(tmp_path / "c.sqlite", CATALOGUE, durable=False)
    assert fault.value.reason == "database"
