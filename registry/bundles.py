"""Bundles: what the service answers a device, and what it writes on a stick.

Guarantees: a bundle given out was verified by the device's own steps before; nothing in it rests
on a decision of the service that the device cannot make again for itself. An answer's fresh part
is never older than a tenth of max-age while the chain moves, and never shows other records than
the head does.

Rules:

* Offered is the newest release that the ledger's rules let this device install. If there is none,
  but newer ones exist, the newest of them goes out, so that the device sees for itself why it
  waits.
* If nothing is newer, the fresh part alone goes out, and speaks of the release that the device runs
  (of the newest one if that is unknown): "nothing for you" is proved, too.
* What is shown of a product never goes back in height, whichever release it speaks of, nor below
  the height that a device says it has seen: a device would take an earlier block for a replay.
* Where the validators changed above the height that a device has seen, the headers that lead from
  them to those of the proof go along (`registry.links`). A device too far behind for one bundle is
  shown the block of the last link that fits, with nothing to install, and asks again from there.
* The ETag is of the bytes. They stay the same until the fresh part is due to be remade, or the
  ledger says something else; so a 304 never outlives a proof.

Not here: who may ask. A bundle holds nothing secret.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from protocol import cbor
from protocol.bundle import FORMAT, Anchor, Fresh, assemble
from protocol.digests import sha256
from protocol.errors import Misuse, Refused, Unreachable
from protocol.header import parse_header
from protocol.ids import Hash, ProductId
from protocol.ledger import Reason, eligible
from protocol.records import Device, Product
from registry.catalogue import Catalogue, ReleaseEntry
from registry.links import Links, Path
from registry.ports import Block, Chain
from registry.submission import Artifacts

REMADE_PER_MAX_AGE = 10
KEPT_PARTS = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A bundle, encoded, and what the service thinks of it (which no device believes).

    ``release_id``: the release it speaks of. ``reason``: whether the asking device may install it,
    None if it brings no release to install. ``made_at``: the time of its proof's header.
    """

    body: bytes
    etag: str
    release_id: int | None
    reason: Reason | None
    made_at: int

    @property
    def offers(self) -> bool:
        """Whether the device may install what it brings."""
        return self.reason is Reason.ELIGIBLE


@dataclass(frozen=True)
class _Moment:
    """One product as the ledger had it at one block; releases from the newest to the oldest."""

    block: Block
    product: Product
    releases: tuple[ReleaseEntry, ...]

    def release(self, release_id: int) -> ReleaseEntry | None:
        index = len(self.releases) - release_id
        return self.releases[index] if 0 <= index < len(self.releases) else None


@dataclass(frozen=True)
class _Made:
    """A fresh part as it was made, and the bundles it went out in, by their static part."""

    fresh: Fresh
    block: Block
    bundles: dict[tuple[Hash | None, tuple[bytes, ...]], tuple[bytes, str]] = field(
        default_factory=dict
    )

    def bundle(
        self, terms_hash: Hash | None, static: bytes | None, links: tuple[bytes, ...]
    ) -> tuple[bytes, str]:
        """Encoded bundle and ETag with these links and this static part (of ``terms_hash``)."""
        known = self.bundles.get((terms_hash, links))
        if known is None:
            fresh = replace(self.fresh, links=links).encode()
            body = cbor.dumps([FORMAT, static, fresh])
            known = self.bundles[terms_hash, links] = body, f'"{sha256(body)[:16].hex()}"'
        return known


class Bundles:
    """Makes bundles from the catalogue and the chain's proofs, and keeps them while they hold."""

    def __init__(
        self,
        chain: Chain,
        catalogue: Catalogue,
        artifacts: Artifacts,
        *,
        code_hash: Hash,
        max_age: int,
        now: Callable[[], int],
    ) -> None:
        self._chain, self._catalogue, self._artifacts = chain, catalogue, artifacts
        self._code_hash, self._now = code_hash, now
        self.renewed_every = max(1, max_age // REMADE_PER_MAX_AGE)
        self._head: Block | None = None
        self._moments: dict[ProductId, _Moment] = {}
        self._made: dict[tuple[ProductId, int | None], _Made] = {}
        self._shown: dict[ProductId, int] = {}  # the height that was shown last
        self._statics: dict[Hash, bytes] = {}
        self._links = Links(chain, catalogue)
        self._half_ways: dict[tuple[ProductId, Hash], _Made] = {}  # few: one in 16 changes
        self._lock = threading.RLock()

    def advance(self) -> bool:
        """Takes note of the catalogue's head; True if it is another one than before."""
        head = self._catalogue.head()
        with self._lock:
            if head == self._head:
                return False
            self._head = head
            self._links.refresh()
            return True

    def answer(self, product_id: ProductId, device: Device, seen: int | None = None) -> Answer:
        """The bundle for one device that has ``seen`` this height of the ledger, if it says so.

        `Misuse` ``unknown-product``, `Unreachable` while nothing is followed.
        """
        with self._lock:
            moment = self._moment(product_id)
            entry, reason = _choose(moment, device)
            made, static = self._fresh(product_id, moment, entry, seen or 0), None
            if entry is not None and reason is not None:
                then = _verdict(entry, made.fresh.product, device, made.block.timestamp)
                if then is not reason:  # time alone decided: show the device the later block
                    made = self._make(product_id, moment, entry)
                static = self._static(entry.terms_hash)
            find = self._links.last if seen is None else self._links.first
            made, path = self._led(product_id, moment, entry, made, partial(find, seen or 0))
            if path.rest:
                return self._half_way(product_id, path)
        return _answer(made, static, entry, reason if static else None, path)

    def of_release(self, product_id: ProductId, release_id: int, height: int = 0) -> Answer:
        """The bundle of one release, for sticks and mirrors: for any device above ``height``."""
        with self._lock:
            moment = self._moment(product_id)
            entry = _known(moment, release_id)
            static = self._static(entry.terms_hash)
            if static is None:
                raise Misuse(
                    "no-artifacts",
                    f"no bundle of release {release_id} made",
                    "this registry does not hold its envelope and payload",
                    "ask the registry it was published through, or publish it here as well",
                )
            made = self._fresh(product_id, moment, entry)
            find = partial(self._links.last, height)
            made, path = self._led(product_id, moment, entry, made, find)
            return _answer(made, static, entry, None, path)

    def fresh(self, product_id: ProductId, release_id: int | None) -> Fresh:
        """The fresh part that speaks of one release, or of the product alone before the first."""
        with self._lock:
            moment = self._moment(product_id)
            entry = None if release_id is None else _known(moment, release_id)
            return self._fresh(product_id, moment, entry).fresh

    def _static(self, terms_hash: Hash) -> bytes | None:
        """A release's static part; kept, since it never changes once it is there."""
        known = self._statics.get(terms_hash)
        if known is None:
            known = self._artifacts.static(terms_hash)
            if known is not None:
                if len(self._statics) >= KEPT_PARTS:
                    self._statics.pop(next(iter(self._statics)))
                self._statics[terms_hash] = known
        return known

    def _moment(self, product_id: ProductId) -> _Moment:
        if self._head is None:
            self.advance()
        block = self._head
        if block is None:
            raise Unreachable(
                "nothing-indexed",
                "no bundle made",
                "this registry has not followed a block of its ledger yet",
                "try again in a moment",
            )
        known = self._moments.get(product_id)
        if known is None or known.block != block:
            known = self._moments[product_id] = self._moment_at(product_id, block)
        return known

    def _moment_at(self, product_id: ProductId, block: Block) -> _Moment:
        entry = self._catalogue.product(product_id, now=block.timestamp, at=block.number)
        releases = self._catalogue.releases(product_id, at=block.number)
        newest_first = tuple(sorted(releases, key=lambda r: r.release_id, reverse=True))
        return _Moment(block, entry.record, newest_first)

    def _led(
        self,
        product_id: ProductId,
        moment: _Moment,
        entry: ReleaseEntry | None,
        made: _Made,
        find: Callable[[int], Path],
    ) -> tuple[_Made, Path]:
        """A fresh part and the links to its block: to the head's, if none lead to an older one."""
        path = find(made.block.number)
        if not path.leads and made.block != moment.block:
            made = self._make(product_id, moment, entry)
            path = find(made.block.number)
        return made, path

    def _half_way(self, product_id: ProductId, path: Path) -> Answer:
        """The block that a path's last link leads to: older than the head, so nothing to install.

        `Refused` ``too-far-behind`` where the node proves no block that old.
        """
        block = path.links[-1].block
        made = self._half_ways.get((product_id, block.hash))
        if made is not None:
            return _answer(made, None, None, None, path)
        moment = self._moment_at(product_id, block)
        try:
            made = self._prove(product_id, moment, (*moment.releases, None)[0])
        except Unreachable as fault:
            raise Refused(
                "too-far-behind",
                "no bundle made",
                f"the validators changed more often than one bundle follows, and block"
                f" {block.number} cannot be proved any more: {fault.why}",
                "let the registry use a node that keeps old states, or re-anchor the device"
                " (`firmledger product reanchor`)",
            ) from fault
        self._half_ways[product_id, block.hash] = made
        return _answer(made, None, None, None, path)

    def _fresh(
        self, product_id: ProductId, moment: _Moment, entry: ReleaseEntry | None, seen: int = 0
    ) -> _Made:
        made = self._made.get((product_id, entry.release_id if entry else None))
        lowest = max(seen, self._shown.get(product_id, 0))
        if made is None or not self._holds(made, moment, entry, lowest):
            return self._make(product_id, moment, entry)
        return made

    def _holds(self, made: _Made, moment: _Moment, entry: ReleaseEntry | None, lowest: int) -> bool:
        """Whether it shows what the head has, at no lower height, and is not due."""
        # The record, not what is stored: by time alone another governance is in effect.
        if made.fresh.product != moment.product or made.fresh.release != (
            entry.record if entry else None
        ):
            return False
        due = self._now() - made.block.timestamp >= self.renewed_every
        return made.block == moment.block or not (due or made.block.number < lowest)

    def _make(self, product_id: ProductId, moment: _Moment, entry: ReleaseEntry | None) -> _Made:
        made = self._prove(product_id, moment, entry)
        if len(self._made) >= KEPT_PARTS:
            self._made.pop(next(iter(self._made)))
        self._made[product_id, entry.release_id if entry else None] = made
        self._shown[product_id] = moment.block.number
        return made

    def _prove(self, product_id: ProductId, moment: _Moment, entry: ReleaseEntry | None) -> _Made:
        header = self._chain.header(moment.block.hash)
        # The registry's own node says who seals; whether they are trusted is each device's to say.
        validators = parse_header(header).extra.validators
        anchor = Anchor(self._chain.ledger, product_id, self._code_hash, validators)
        slots = anchor.slots(entry.release_id if entry else None)
        answer = self._chain.proof(slots, moment.block.hash)
        record = entry.record if entry else None
        fresh = assemble(anchor, header, answer, moment.product, record)
        return _Made(fresh, moment.block)


def _known(moment: _Moment, release_id: int) -> ReleaseEntry:
    entry = moment.release(release_id)
    if entry is None:
        raise Misuse(
            "unknown-release",
            f"release {release_id} not found",
            "the product has no release of that id",
            "see `firmledger release list`",
        )
    return entry


def _verdict(entry: ReleaseEntry, product: Product, device: Device, now: int) -> Reason:
    return eligible(product, entry.terms, entry.release_id, entry.state, device, now)


def _choose(moment: _Moment, device: Device) -> tuple[ReleaseEntry | None, Reason | None]:
    """The release to speak of, and the verdict on it; no verdict if nothing is newer."""
    newer = [entry for entry in moment.releases if entry.terms.version > device.version]
    first: tuple[ReleaseEntry, Reason] | None = None
    for entry in newer:
        reason = _verdict(entry, moment.product, device, moment.block.timestamp)
        if reason is Reason.ELIGIBLE:
            return entry, reason
        first = first or (entry, reason)
    if first:
        return first
    running = [entry for entry in moment.releases if entry.terms.version == device.version]
    return (*running, *moment.releases, None)[0], None


def _answer(
    made: _Made,
    static: bytes | None,
    entry: ReleaseEntry | None,
    reason: Reason | None,
    path: Path,
) -> Answer:
    body, etag = made.bundle(entry.terms_hash if entry and static else None, static, path.headers)
    release_id = entry.release_id if entry else None
    return Answer(body, etag, release_id, reason, made.block.timestamp)
