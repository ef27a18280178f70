"""Every parser that meets bytes from outside, each with good data to start from, and its bounds.

``python -m tests.protocol.parsers 600`` feeds them mutants for that many seconds and tells figures;
test_fuzz.py does the same with few.
"""

from __future__ import annotations

import json
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import Any

from device_client.core import copies
from device_client.core.book import MAX_BOOK_BYTES, Book, Happening
from device_client.core.machine import Stage, State
from device_client.core.slots import BootRecord, Entry, factory
from device_client.core.trust import TrustState, advance
from device_client.core.types import Target
from protocol import (
    bundle,
    cbor,
    cose,
    header,
    manifest,
    payload,
    reanchor,
    receipt,
    records,
    rlp,
    suit,
    trie,
)
from protocol.bundle import Acknowledgement, Bundle, Fresh, Static
from protocol.digests import keccak256, sha256
from protocol.errors import Malformed, Refused, Untrusted
from protocol.ids import Version
from protocol.trustfile import ClassKey, ClassKeys, TrustFile
from tests.protocol import published, recovering, samples, sealed
from tests.world.mutation import mutant

STORY = published.publish()
FRESH = STORY.fresh(9)
BUNDLE = Bundle(FRESH, STORY.static)
STATE = replace(
    TrustState.first(recovering.trust_file(validators=STORY.anchor.validators)),
    statuses=((1, 1), (2, 3)),
    header=FRESH.proof.header,
    anchored=recovering.STATEMENT,
    evidence=(FRESH.proof.header, FRESH.proof.header),
)
_TARGET = Target(1, Version.parse("1.0.0"), 1, sha256(b"i"), 5, sha256(b"p"), 5, sha256(b"m"))
_BOOK = (
    Book(State(Stage.WAITING, _TARGET, 0, 3, (sha256(b"x"),), "why"), STATE.encode())
    .noted(Happening(5, "confirmed", 1, 1, ""))
    .queued(b"receipt", 1, receipt.Outcome.CONFIRMED, "")
)
_MAGIC = b"FLJR"
BASE_CALLS, CALLS_PER_BYTE = 30_000, 60
"""Bound of work: function calls, Python's and C's, that any input may cost."""
BASE_MEMORY, MEMORY_PER_BYTE = 256 * 1024, 100
"""Bound of memory in bytes; a bundle's largest is read within some 20 MiB, a header's within 1."""

ANSWERS = (Malformed, Untrusted, Refused)
"""All that bytes from outside may bring about; `Misuse` would blame the caller."""


@dataclass(frozen=True)
class Parser:
    """``read`` returns or raises one of `ANSWERS`; ``seeds``: data that it reads, at least one."""

    name: str
    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    maximum: int | None
    """The length above which it refuses unread; None where the bytes are a region of fixed size."""
    authentic: bool = False
    """Whether nothing may be read but the seeds themselves."""


def _walk(data: bytes) -> object:
    """A trie whose root is the first of the nodes: what a dishonest quorum could seal."""
    nodes = cbor.as_list(cbor.loads(data, max_bytes=100_000), "nodes")
    raw = tuple(cbor.as_bytes(node, "node") for node in nodes)
    pool = trie.NodePool(raw)
    if not raw:
        raise Malformed("empty", "", "", "")
    return trie.verify(keccak256(raw[0]), sealed.CONTRACT, pool)


def _answer(data: bytes) -> object:
    """What a device does with the answer to a poll."""
    read = Bundle.decode(data)
    start = TrustState(height=3, time=0, header=b"", validators=STORY.anchor.validators)
    _, view = advance(start, read.fresh, STORY.anchor, clock=None)
    return bundle.offer(read.static, view) if read.static else view


def _resealed(data: bytes) -> object:
    """A header with any content, sealed by the validators: the rest is to be proved still."""
    bent = header.parse_header(data)
    if bent.extra.validators != STORY.anchor.validators:
        raise Malformed("foreign", "", "", "")
    raw = header.encode_header(sealed.seal(bent, STORY.group[:3]))
    return bundle.prove(replace(FRESH, proof=replace(FRESH.proof, header=raw)), STORY.anchor)


def _acknowledged(data: bytes) -> object:
    read = Acknowledgement.decode(data)
    view = bundle.prove(read.fresh, STORY.anchor)
    return read.check(bytes(32), 1, view)


def _unwrapped(data: bytes) -> object:
    return payload.unwrap(data, samples.CLASS_KEY, samples.KID)


def _copied(data: bytes) -> object:
    half = len(data) // 2
    found = copies.newest(_MAGIC, data[:half], data[half:])
    return Book.decode(found[1]) if found else None


def _class_keys() -> bytes:
    return ClassKeys(
        published.PRODUCT_ID, (ClassKey(1, "00", "PEM"), ClassKey(2, "01", ""))
    ).to_bytes()


_RECORDS: dict[str, records.Record] = {
    "terms": STORY.terms,
    "product": STORY.product,
    "state": STORY.state,
    "release": STORY.release,
    "approval": records.Approval(STORY.terms, 1, 2**64 - 1),
    "amendment": records.Amendment(published.PRODUCT_ID, STORY.product.governance, 1, 5),
    "decision": records.Decision(published.PRODUCT_ID, 1, 1, 0, 1, 5),
    "device": records.Device(published.DEVICE_ID, 1, 1, 1),
}


def _records(data: bytes) -> object:
    """A record by its name, from JSON that others have read."""
    try:
        document = json.loads(data)
        kind = type(_RECORDS[document["is"]])
        value = document["record"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise Malformed("no-json", "", "", "") from error
    read = kind.from_json(value)
    assert kind.from_json(read.to_json()) == read
    return read


def _json_seeds() -> Iterator[bytes]:
    for name, made in _RECORDS.items():
        yield json.dumps({"is": name, "record": made.to_json()}).encode()


def _reanchored(data: bytes) -> object:
    trust = recovering.trust_file()
    keys, threshold = trust.recovery_public_keys, trust.recovery_threshold
    return reanchor.verify(data, product_id=trust.product_id, keys=keys, threshold=threshold)


def _parsers() -> Iterator[Parser]:
    raw, envelopes = FRESH.proof.header, (samples.ENVELOPE, samples.NOTED_ENVELOPE, STORY.envelope)
    extra = header.encode_extra(header.parse_header(raw).extra)
    boot = factory(Entry(digest=sha256(b"i"), size=5)).encode()
    ack = Acknowledgement(0, 1, (bytes(32),), FRESH).encode()
    limits = {"max_bytes": 8192, "max_depth": 8, "max_items": 256}
    yield Parser("rlp", partial(rlp.decode, **limits), (raw, extra, *FRESH.proof.nodes), 8192)
    yield Parser("trie", _walk, (cbor.dumps(list(FRESH.proof.nodes)),), 100_000)
    yield Parser("header", header.parse_header, (raw,), header.MAX_HEADER_BYTES)
    yield Parser("extra data", header.parse_extra, (extra,), header.MAX_HEADER_BYTES)
    yield Parser("seals", lambda d: header.sealers(header.parse_header(d)), (raw,), 8192, True)
    yield Parser("sealed anew", _resealed, (raw,), 8192)
    yield Parser(
        "cbor",
        partial(cbor.loads, max_bytes=8192, tags=(18, 107)),
        (*envelopes, FRESH.encode()),
        8192,
    )
    yield Parser("static part", Static.decode, (STORY.static.encode(),), bundle.MAX_STATIC_BYTES)
    yield Parser("fresh part", Fresh.decode, (FRESH.encode(),), bundle.MAX_FRESH_BYTES)
    yield Parser("bundle", Bundle.decode, (BUNDLE.encode(),), bundle.MAX_BUNDLE_BYTES)
    yield Parser("answer", _answer, (BUNDLE.encode(), Bundle(FRESH).encode()), 10**6, True)
    yield Parser("acknowledgement", _acknowledged, (ack,), bundle.MAX_ACK_BYTES)
    yield Parser("stick", bundle.read_stick_prefix, (bundle.stick_prefix(bytes(500)),), 12)
    yield Parser("envelope", partial(manifest.verify, keys=samples.KEYS), envelopes, 8192)
    yield Parser("manifest digest", manifest.manifest_digest, envelopes, 8192)
    yield Parser("manifest", manifest.parse, (manifest.build(samples.MANIFEST),), 8192)
    yield Parser("envelope alone", partial(suit.open_envelope, max_bytes=8192), envelopes, 8192)
    yield Parser("encryption info", _unwrapped, (samples.INFO,), 1024)
    yield Parser(
        "receipt",
        partial(receipt.verify, public_key=samples.DEVICE_PUBLIC),
        (samples.CONFIRMED_BYTES, samples.ROLLED_BACK_BYTES, samples.REFUSED_BYTES),
        receipt.MAX_RECEIPT_BYTES,
        authentic=True,
    )
    keys = tuple(cose.public_key_to_bytes(k) for k in (samples.SIGNING_PUBLIC, samples.P256_PUBLIC))
    yield Parser("public key", cose.public_key_from_bytes, keys, cose.MAX_KEY_BYTES)
    yield Parser(
        "COSE_Sign1", partial(cose.read_sign1, max_bytes=1024), (samples.CONFIRMED_BYTES,), 1024
    )
    trust = recovering.trust_file().to_bytes()
    yield Parser("trust file", TrustFile.parse, (trust,), 64 * 1024)
    yield Parser("class keys", ClassKeys.parse, (_class_keys(),), 64 * 1024)
    yield Parser("trusted state", TrustState.decode, (STATE.encode(),), 32 * 1024)
    yield Parser(
        "re-anchor", _reanchored, (recovering.signed(),), reanchor.MAX_REANCHOR_BYTES, True
    )
    yield Parser("records as JSON", _records, tuple(_json_seeds()), None)
    yield Parser("book", Book.decode, (_BOOK.encode(),), MAX_BOOK_BYTES)
    copy = copies.seal(_MAGIC, 4, _BOOK.encode())
    yield Parser("journal", _copied, (copy + bytes(len(copy)), copy + copy), None)
    yield Parser("boot record", BootRecord.decode, (boot,), len(boot))


PARSERS = tuple(_parsers())


class Bounded:
    """Counts what one call costs: function calls, and the peak of memory while it ran."""

    def __init__(self) -> None:
        self.calls = 0
        self.memory = 0

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        self.calls += event in ("call", "c_call")

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """What happens inside is counted; memory only where tracemalloc is on."""
        tracing = tracemalloc.is_tracing()
        if tracing:
            tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        sys.setprofile(self._count)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.memory = tracemalloc.get_traced_memory()[1] - before if tracing else 0

    def check(self, size: int) -> None:
        """AssertionError if it cost more than an input of ``size`` bytes may."""
        assert self.calls <= BASE_CALLS + CALLS_PER_BYTE * size, f"{self.calls} calls"
        assert self.memory <= BASE_MEMORY + MEMORY_PER_BYTE * size, f"{self.memory} bytes"


def answered(parser: Parser, data: bytes, bounded: Bounded | None = None) -> str:
    """What came of it, its reason or ``read``; AssertionError for whatever must not happen."""
    try:
        with bounded.measuring() if bounded else nullcontext():
            parser.read(data)
        assert not parser.authentic or data in parser.seeds, "read, and nobody signed it"
    except ANSWERS as error:
        for sentence in (error.what, error.why, error.fix):
            assert len(sentence) < 600, f"{parser.name}: a sentence of {len(sentence)} characters"
        return error.reason
    except Exception as error:
        raise AssertionError(f"{parser.name}: {error!r} for {data.hex()}") from error
    return "read"


def feed(parser: Parser, data: bytes) -> tuple[str, Bounded]:
    """As `answered`, and what it cost; AssertionError if that was too much."""
    bounded = Bounded()
    answer = answered(parser, data, bounded)
    try:
        bounded.check(len(data))
    except AssertionError as error:
        raise AssertionError(f"{parser.name}: {error} for {data.hex()}") from error
    return answer, bounded


def main() -> None:
    """The one-off."""
    seconds, rng = float(sys.argv[1]), random.Random(int(sys.argv[2]) if sys.argv[2:] else 4)
    end, answers = time.monotonic() + seconds, {p.name: Counter[str]() for p in PARSERS}
    most = {p.name: [0, 0] for p in PARSERS}
    tracemalloc.start()
    while time.monotonic() < end:
        for parser in PARSERS:
            for _ in range(20):
                answer, cost = feed(parser, mutant(rng, parser.seeds))
                answers[parser.name][answer] += 1
                most[parser.name][0] = max(most[parser.name][0], cost.calls)
                most[parser.name][1] = max(most[parser.name][1], cost.memory)
    for name, found in answers.items():
        calls, memory = most[name]
        sys.stdout.write(
            f"{name:16} {found.total():8} inputs {found['read']:8} read {len(found) - 1:3} reasons,"
            f" at most {calls:7} calls, {memory // 1024:5} KiB\n"
        )
    total = sum(found.total() for found in answers.values())
    sys.stdout.write(f"{total} inputs in {seconds:.0f} s, none with another answer\n")


if __name__ == "__main__":
    main()
