"""Whoever stands between a ledger and a device, and all the lies that can be told about one.

The adversary has every genuine answer of two chains and two products, a node of each, fewer
validators' keys than a quorum, and as many keys of its own as it likes. `lies` are answers to a
poll, each with the step that must refuse it. All keys are test vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from device_client.core.trust import Step, TrustState
from protocol import bundle, cbor
from protocol.bundle import Anchor, Bundle, Fresh
from protocol.digests import keccak256
from protocol.header import encode_header
from protocol.ids import Hash, ProductId
from protocol.ledger import Status
from protocol.proof import Proof, assemble
from protocol.records import Head, Ledger, Release
from tests.protocol.published import (
    LEDGER,
    NOW,
    PRODUCT_ID,
    Published,
    make_manifest,
    publish,
)
from tests.protocol.sealed import (
    CODE_HASH,
    CONTRACT,
    Validator,
    World,
    addresses,
    make_header,
    seal,
    validators,
)

OTHER_PRODUCT = ProductId(keccak256(b"test vector: another product"))
OTHER_CHAIN = Ledger(999, CONTRACT)
PROXY = keccak256(b"test vector: the code of a proxy")
NO_CODE = keccak256(b"")


@dataclass(frozen=True)
class Lie:
    """An answer that must be refused by that step, and for that reason."""

    name: str
    answer: bytes
    step: object
    reason: str


@dataclass(frozen=True)
class Adversary:
    """``height``, ``time``: where the device stands; all genuine blocks it is shown are above."""

    height: int = 20
    time: int = NOW

    @cached_property
    def active(self) -> Published:
        return publish()

    @cached_property
    def halted(self) -> Published:
        return self.active.with_status(Status.HALTED)

    @property
    def anchor(self) -> Anchor:
        return self.active.anchor

    @property
    def device(self) -> TrustState:
        """A device that has seen the release halted."""
        header = self.halted.fresh(self.height, self.time).proof.header
        return TrustState(
            *(self.height, self.time, header, addresses(self.active.group)),
            newest=self.active.terms.version,
            statuses=((1, int(Status.HALTED)),),
        )

    def genuine(self) -> bytes:
        """What an honest registry answers: the release, halted, at a newer block."""
        return self._told(self.halted.fresh(21, NOW + 5), self.halted)

    def _told(self, fresh: Fresh, story: Published | None = None) -> bytes:
        return Bundle(fresh, (story or self.active).static).encode()

    def _world(self, words: dict[Hash, bytes], code_hash: Hash = CODE_HASH) -> World:
        numbers = {slot: int.from_bytes(word, "big") for slot, word in words.items()}
        return World(numbers, group=self.active.group, code_hash=code_hash)

    def _words(
        self, story: Published, ledger: Ledger = LEDGER, product: ProductId = PRODUCT_ID
    ) -> dict[Hash, bytes]:
        """What a contract stores of a story, were it told of that product on that ledger."""
        slots = replace(self.anchor, product_id=product).slots(story.release_id)
        hashed = story.terms.hash_struct()
        return {
            slots[0]: ledger.product_slot(product, story.product, NOW),
            slots[1]: ledger.release_slot(product, story.release_id, hashed, story.state),
        }

    def _block(
        self,
        world: World,
        slots: Sequence[Hash],
        sealed_by: Sequence[Validator] | None = None,
        number: int = 21,
        timestamp: int = NOW + 5,
    ) -> Proof:
        header = world.header(number=number, timestamp=timestamp)
        good = assemble(encode_header(header), world.get_proof(slots))
        if sealed_by is None:
            return good
        made = world.header(number=number, timestamp=timestamp, sealed_by=sealed_by)
        return replace(good, header=encode_header(made))

    # -- what is told -----------------------------------------------------------------------------

    def lies(self) -> Iterator[Lie]:
        """All of them."""
        yield from self._forged()
        yield from self._old_and_new()
        yield from self._linked()
        yield from self._mixed()
        yield from self._cut()
        yield from self._absent_and_present()
        yield from self._other_code()
        yield from self._endless()

    def _forged(self) -> Iterator[Lie]:
        four, strangers = self.active.group, validators(4, start=90)
        by = {
            "sealed by strangers": ([*strangers], "foreign-seal"),
            "a stranger among good seals": ([*four[:3], strangers[0]], "foreign-seal"),
            "two seals of four": (four[:2], "no-quorum"),
            "no seals": ([], "no-quorum"),
            "one validator's seal three times": ([four[0]] * 3, "duplicate-seal"),
            "a duplicate beside a quorum": ([*four[:3], four[0]], "duplicate-seal"),
        }
        for name, (sealed_by, reason) in by.items():
            fresh = self.active.fresh(21, NOW + 5, sealed_by=sealed_by)
            yield Lie(name, self._told(fresh), 3, reason)
        own = replace(self.active, group=tuple(strangers)).fresh(21, NOW + 5)
        yield Lie("validators of its own", self._told(own), 3, "validators-changed")
        for name, group in {
            "a link to its own validators": strangers,
            "a link signed by half": sorted([*four[:2], *strangers[:2]], key=_address),
        }.items():
            link = encode_header(seal(make_header(group, number=21), group))
            told = replace(self.active, group=tuple(group)).fresh(22, NOW + 6)
            yield Lie(name, self._told(replace(told, links=(link,))), Step.LINKS, "no-overlap")

    def _old_and_new(self) -> Iterator[Lie]:
        replayed = self.active.fresh(19, NOW)
        yield Lie("replay of a block before the halt", self._told(replayed), Step.HEIGHT,
                  "below-trusted-height")  # fmt: skip
        early = self.active.fresh(21, NOW - 1)
        yield Lie("a later block with an earlier time", self._told(early), Step.TIME, "time-falls")
        far = self.active.fresh(21, NOW + 10**9)
        yield Lie("fast-forward of time", self._told(far), Step.FUTURE, "from-the-future")
        for number in (2**32, 2**64 - 1):
            jump = self.active.fresh(number, NOW + 5, sealed_by=self.active.group[:2])
            yield Lie(f"fast-forward to block {number}", self._told(jump), 3, "no-quorum")
        rival = self.active.fresh(20, NOW)
        yield Lie("another block of the height trusted", self._told(rival), Step.ONE_BLOCK,
                  "equivocation")  # fmt: skip
        few = self.active.fresh(20, NOW, sealed_by=self.active.group[:2])
        yield Lie("the same without a quorum", self._told(few), 3, "no-quorum")

    def _linked(self) -> Iterator[Lie]:
        """Links from before the device's time: they lead nowhere, and must hold all the same."""
        four, strangers = list(self.active.group), validators(4, start=90)

        def link(group: list[Validator], number: int, sealed_by: list[Validator]) -> bytes:
            return encode_header(seal(make_header(group, number=number), sealed_by))

        own, told = link(strangers, 15, strangers), self.halted.fresh(21, NOW + 5)
        theirs = replace(self.active, group=tuple(strangers)).fresh(21, NOW + 5)
        yield Lie("validators of its own since long ago", self._told(replace(theirs, links=(own,))),
                  3, "validators-changed")  # fmt: skip
        mixed = link(four, 15, [*four[:3], strangers[0]])
        crowd, extra = validators(64, start=200), link(strangers, 19, strangers)
        crowds = tuple(link(crowd, number, crowd) for number in range(1, 9))
        for name, links, reason in (
            ("an old link that nobody sealed", (link(strangers, 15, []),), "no-quorum"),
            ("an old link that a stranger sealed, too", (mixed,), "foreign-seal"),
            ("old links in any order", (own, link(four, 12, four)), "link-order"),
            ("signatures without end", (*crowds, extra), "too-many-seals"),
        ):  # fmt: skip
            yield Lie(name, self._told(replace(told, links=links)), Step.LINKS, reason)
        rival = self._told(replace(told, links=(link(four, 20, four),)))
        yield Lie("another block of the height trusted, as a link", rival, Step.LINKS,
                  "equivocation")  # fmt: skip

    def _mixed(self) -> Iterator[Lie]:
        active, halted = self.active.fresh(19, NOW), self.halted.fresh(21, NOW + 5)
        old_nodes = Proof(halted.proof.header, active.proof.nodes)
        yield Lie("a new header over an old state", self._told(replace(halted, proof=old_nodes)), 5,
                  "node-missing")  # fmt: skip
        old_record = replace(halted, release=active.release)
        yield Lie("an old record over a new state", self._told(old_record), 10,
                  "wrong-release-record")  # fmt: skip
        newer = replace(self.halted.product, head=Head(1, self.active.terms.version + 1, 1))
        old_product = replace(halted, product=newer)
        yield Lie("a product record of another time", self._told(old_product), 9,
                  "wrong-product-record")  # fmt: skip
        yield from self._mixed_products()
        other = publish(make_manifest(image_digest=keccak256(b"another image")))
        view = self._told(halted, replace(self.halted, envelope=other.envelope))
        yield Lie("the manifest of another release", view, 13, "wrong-manifest")
        terms = replace(self.active.terms, hardware_max=99)
        yield Lie("terms of another release", self._told(halted, replace(self.active, terms=terms)),
                  11, "wrong-terms")  # fmt: skip

    def _mixed_products(self) -> Iterator[Lie]:
        # Both products live in one contract; the other's approvers published this very release.
        words = self._words(self.halted) | self._words(self.active, product=OTHER_PRODUCT)
        world = self._world(words)
        theirs = replace(self.anchor, product_id=OTHER_PRODUCT).slots(1)
        told = Fresh(self._block(world, theirs), self.active.product, self.active.release)
        yield Lie("the proof of another product", self._told(told), 7, "node-missing")
        ours = replace(told, proof=self._block(world, self.anchor.slots(1)))
        yield Lie("records of another product over this one's proof", self._told(ours), 10,
                  "wrong-release-record")  # fmt: skip
        # The validators seal another chain, too, on which the release is still active.
        chain = self._world(self._words(self.active, ledger=OTHER_CHAIN))
        proof = self._block(chain, self.anchor.slots(1))
        told = Fresh(proof, self.active.product, self.active.release)
        yield Lie("a block of another chain", self._told(told), 9, "wrong-product-record")

    def _cut(self) -> Iterator[Lie]:
        fresh = self.halted.fresh(21, NOW + 5)
        header, nodes = fresh.proof.header, fresh.proof.nodes
        cuts = {
            "no nodes": (Proof(header, ()), 5, "node-missing"),
            "the last node left out": (Proof(header, nodes[:-1]), 7, "node-missing"),
            "the first node left out": (Proof(header, nodes[1:]), 5, "node-missing"),
            "a node cut short": (Proof(header, (*nodes[:-1], nodes[-1][:-1])), 7, "node-missing"),
            "a node twice": (Proof(header, (*nodes, nodes[-1])), 8, "surplus-nodes"),
            "two nodes in each other's place": (
                Proof(header, (nodes[1], nodes[0], *nodes[2:])), 8, "surplus-nodes",
            ),
            "a header cut short": (Proof(header[:-1], nodes), 2, "rlp-truncated"),
            "no header": (Proof(b"", nodes), 2, "rlp-truncated"),
        }  # fmt: skip
        for name, (proof, number, reason) in cuts.items():
            yield Lie(name, self._told(replace(fresh, proof=proof)), number, reason)
        whole = self.genuine()
        yield Lie("an answer cut short", whole[:-1], Step.READ, "truncated")
        yield Lie("no answer", b"", Step.READ, "truncated")
        link = replace(fresh, links=(header[:-1],))
        yield Lie("a link cut short", self._told(link), Step.LINKS, "rlp-truncated")

    def _absent_and_present(self) -> Iterator[Lie]:
        invented = Release(2, self.active.terms.hash_struct(), self.active.state)
        story = replace(self.active, release_id=1)
        told = story.fresh(21, NOW + 5, claimed=invented)
        yield Lie("a release that is not there", self._told(told), 10, "not-on-ledger")
        hidden = replace(told, proof=self._block(self._world(self._words(story)), []))
        yield Lie("its absence unproved", self._told(hidden), 7, "node-missing")
        slots = self.anchor.slots(None)
        alone = self._block(self._world(self._words(self.active)), slots)
        none = Bundle(Fresh(alone, self.active.product, None)).encode()
        yield Lie("no release where there is one", none, 10, "release-missing")
        empty = replace(self.active.product, head=Head(0, self.active.terms.version, 0))
        none = Bundle(Fresh(alone, empty, None)).encode()
        yield Lie("a product that never released", none, 9, "wrong-product-record")
        # On a ledger without this product both words are absent, and absence is proved well.
        world = self._world(self._words(self.active, product=OTHER_PRODUCT))
        nothing = Fresh(self._block(world, self.anchor.slots(1)), story.product, story.release)
        yield Lie("a product that is not there", self._told(nothing), 9, "wrong-product-record")

    def _other_code(self) -> Iterator[Lie]:
        codes = {
            "a proxy instead of the contract": PROXY,
            "the contract's code replaced": keccak256(b"test vector: other code"),
            "an account without code": NO_CODE,
        }
        for name, code in codes.items():
            world = self._world(self._words(self.active), code)
            proof = self._block(world, self.anchor.slots(1))
            told = Fresh(proof, self.active.product, self.active.release)
            yield Lie(name, self._told(told), 6, "wrong-code")

    def _endless(self) -> Iterator[Lie]:
        fresh, whole = self.halted.fresh(21, NOW + 5), self.genuine()
        endless = bytes(bundle.MAX_BUNDLE_BYTES + 1)
        yield Lie("an answer without end", whole + endless, Step.READ, "oversized")
        flood = replace(fresh.proof, nodes=fresh.proof.nodes * 40)
        yield Lie("nodes without end", self._told(replace(fresh, proof=flood)), Step.READ,
                  "oversized")  # fmt: skip
        links = (fresh.proof.header,) * (bundle.MAX_LINKS + 1)
        yield Lie("links without end", self._told(replace(fresh, links=links)), Step.READ,
                  "oversized")  # fmt: skip
        long = replace(fresh.proof, header=fresh.proof.header + bytes(8192))
        yield Lie("a header without end", self._told(replace(fresh, proof=long)), Step.READ,
                  "unexpected-structure")  # fmt: skip
        yield Lie("lists within lists", b"\x81" * 100_000, Step.READ, "too-deep")
        row = cbor.loads(whole, max_bytes=len(whole))
        more = cbor.dumps([*row, b"more"])
        yield Lie("a member more", more, Step.READ, "unexpected-structure")


def _address(one: Validator) -> bytes:
    return one.address
