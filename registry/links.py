"""Links: the headers by which a device follows the validators to those of today.

Guarantees: a link given out lists its set, is sealed by a quorum of it and by two thirds of the set
before, in the one order of seals, with no seal more than that takes (docs/spec/trust.md, T4).

Rules:

* Each change of the validators gets a link of its own, so that devices of any height can use them:
  each passes over what is below its own. A set that nothing leads to is left out, if a later one
  can be reached from before it.
* The block at which a set comes in need not have enough seals of those before it; the blocks after
  it are searched, `SEARCHED` of them at most, each once.
* A bundle takes `MAX_LINKS` with `MAX_LINK_SEALS`. A device further behind is led as far as they
  go, and on from there the next time (`Path.rest`).

Not here: proofs (`registry.bundles`), and whom a device trusts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.bundle import MAX_LINKS
from protocol.errors import FirmledgerError, Unreachable
from protocol.header import encode_header, parse_header, trim_seals
from protocol.ids import Hash
from protocol.links import MAX_LINK_SEALS
from protocol.proof import read_link
from registry.catalogue import Catalogue, ValidatorSet
from registry.ports import Block, Chain

SEARCHED = 64


@dataclass(frozen=True, slots=True)
class Link:
    """A header that leads to the set it lists; ``raw`` as bundles carry it."""

    block: Block
    raw: bytes
    seals: int


@dataclass(frozen=True, slots=True)
class Path:
    """Links, oldest first; ``rest``: how many more it takes after these.

    ``leads``: whether all of them together lead to the set wanted; a later block may have a link
    that is missing yet.
    """

    links: tuple[Link, ...] = ()
    rest: int = 0
    leads: bool = True

    @property
    def headers(self) -> tuple[bytes, ...]:
        """As `Fresh.links`."""
        return tuple(link.raw for link in self.links)


class Links:
    """Finds links, and keeps those found; not safe for threads: its owner has a lock."""

    def __init__(self, chain: Chain, catalogue: Catalogue) -> None:
        self._chain, self._catalogue = chain, catalogue
        self._sets: list[ValidatorSet] = []
        self._found: dict[tuple[Hash, Hash], Link] = {}
        self._searched: dict[tuple[Hash, Hash], int] = {}

    def refresh(self) -> None:
        """Takes note of what the catalogue has: after every new head."""
        self._sets = self._catalogue.validator_sets()

    def first(self, height: int, until: int) -> Path:
        """From the set of ``height`` towards that of ``until``, as far as one bundle takes it."""
        every, leads = self._path(height, until, over_gaps=False)
        most = _fitting(every)
        return Path(tuple(every[:most]), len(every) - most, leads)

    def last(self, height: int, until: int) -> Path:
        """For devices of any height above: of too many the newest, for they cannot ask again."""
        every, leads = self._path(height, until, over_gaps=True)
        most = _fitting(every[::-1])
        return Path(tuple(every[len(every) - most :]), 0, leads)

    def _path(self, height: int, until: int, *, over_gaps: bool) -> tuple[list[Link], bool]:
        """Every link above ``height``, up to the block ``until``, and whether they lead there.

        ``over_gaps``: where nothing leads to a set, go on from it, for those who are beyond.
        """
        sets = [each for each in self._sets if each.since <= until]
        passed = sum(each.since <= height for each in sets)
        trusted, later = sets[max(0, passed - 1) : max(1, passed)], sets[max(1, passed) :]
        if not later:
            return [], True
        reached: list[tuple[ValidatorSet, list[Link]]] = [(trusted[0], [])]
        ends = [each.since - 1 for each in later[1:]] + [until]
        leads = False
        for coming, end in zip(later, ends, strict=True):
            leads = False
            for before, links in reversed(reached):
                link = self._link(before, coming, end)
                if link is not None:
                    reached.append((coming, [*links, link]))
                    leads = True
                    break
            if not leads and over_gaps:
                reached.append((coming, reached[-1][1]))
        return reached[-1][1], leads

    def _link(self, before: ValidatorSet, coming: ValidatorSet, end: int) -> Link | None:
        """The first block, up to ``end``, that leads from one set to the other."""
        pair = before.hash, coming.hash
        known = self._found.get(pair)
        if known is not None:
            return known if known.block.number <= end else None
        start = self._searched.get(pair, coming.since)
        for number in range(start, min(end, coming.since + SEARCHED - 1) + 1):
            link = self._at(number, before, coming)
            self._searched[pair] = number + 1
            if link is not None:
                self._found[pair] = link
                return link
        return None

    def _at(self, number: int, before: ValidatorSet, coming: ValidatorSet) -> Link | None:
        block = self._chain.block(number)
        if block is None:
            raise Unreachable(
                "rpc-strange",
                f"block {number} not found",
                "the node does not know a block of its own chain",
                "ask another node",
            )
        try:
            header = parse_header(self._chain.header(block.hash))
            raw = encode_header(trim_seals(header, before.members))
            link = read_link(raw)
        except Unreachable:
            raise
        except FirmledgerError:  # no header that devices read, or one without a quorum
            return None
        if link.validators != coming.members or not link.believed_by(before.members):
            return None
        return Link(block, raw, len(link.sealers))


def _fitting(links: Sequence[Link]) -> int:
    """How many of the first ones a bundle takes."""
    seals = 0
    for count, link in enumerate(links):
        seals += link.seals
        if count == MAX_LINKS or seals > MAX_LINK_SEALS:
            return count
    return len(links)
