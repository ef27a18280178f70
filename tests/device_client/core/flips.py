"""Single-bit changes of a bundle, and which step must refuse each.

``python -m tests.device_client.core.flips 100000`` tries all of a small bundle and of one with
links, then so many random ones on a ledger of 10,000 releases, and says what refused them.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from device_client.core.trust import Step, TrustState, advance
from protocol import bundle
from protocol.bundle import Bundle
from protocol.digests import keccak256
from protocol.errors import FirmledgerError, Malformed, Untrusted, step
from protocol.header import encode_header
from protocol.records import word
from tests.protocol.published import NOW, Published, flipped, publish
from tests.protocol.sealed import addresses, make_header, seal, validators

ALLOWED: dict[str, set[object]] = {
    "envelope": {13, 14},
    "signer": {12},
    "terms": {Step.READ, 11},
    "links": {Step.LINKS},
    "header": {2, 3},
    "nodes": {5, 7},
    "product": {Step.READ, 9},
    "release": {Step.READ, 7, 8, 10},
    # Lengths and tags of CBOR: what they frame is then read as something else.
    "framing": {Step.READ, Step.LINKS, 1, 2, 5, 7, 12, 13},
}
"""Part of a bundle -> steps that may refuse a changed bit of it."""


@dataclass(frozen=True)
class Target:
    """A bundle that holds, the state of the device it is sent to, and where its parts lie."""

    story: Published
    state: TrustState
    links: tuple[bytes, ...] = ()

    @cached_property
    def data(self) -> bytes:
        fresh = replace(self.story.fresh(9, NOW), links=self.links)
        return Bundle(fresh, self.story.static).encode()

    @cached_property
    def parts(self) -> list[str]:
        """The part that each byte belongs to."""
        read = Bundle.decode(self.data)
        static, fresh = read.static, read.fresh
        assert static is not None and fresh.release is not None
        parts = ["framing"] * len(self.data)
        for name, raw in (
            ("envelope", static.envelope),
            ("signer", static.signer),
            ("terms", bundle.cbor.dumps(static.terms.to_list())),
            *(("links", link) for link in fresh.links),
            ("header", fresh.proof.header),
            *(("nodes", node) for node in fresh.proof.nodes),
            ("product", bundle.cbor.dumps(fresh.product.to_list())),
            ("release", bundle.cbor.dumps(fresh.release.to_list())),
        ):
            at = self.data.index(raw)
            assert self.data.find(raw, at + 1) == -1
            parts[at : at + len(raw)] = [name] * len(raw)
        return parts

    def accept(self, data: bytes) -> TrustState:
        """What a device does with an answer, but for asking its policy."""
        with step(Step.READ):
            read = Bundle.decode(data)
        state, view = advance(self.state, read.fresh, self.story.anchor, clock=NOW)
        assert read.static is not None, "a static part does not vanish by one bit"
        bundle.offer(read.static, view)
        return state

    def refusal(self, bit: int) -> tuple[str, object]:
        """The part that ``bit`` is in and the step that refused it; AssertionError if none did."""
        part = self.parts[bit // 8]
        try:
            self.accept(flipped(self.data, bit))
        except (Malformed, Untrusted) as error:
            found = error.data["step"]
            assert found in ALLOWED[part], f"bit {bit} in {part}: step {found}, {error}"
            return part, found
        except FirmledgerError as error:
            raise AssertionError(f"bit {bit} in {part}: {error!r}") from error
        raise AssertionError(f"bit {bit} in {part} is free")


def _state(story: Published) -> TrustState:
    return TrustState(height=8, time=NOW - 5, header=b"", validators=story.anchor.validators)


def small() -> Target:
    """A product with one release on a ledger that holds nothing else."""
    story = publish()
    return Target(story, _state(story))


def linked() -> Target:
    """The same after a link from before the device's time and one that a validator joined by."""
    old, grown = list(validators(4)), list(validators(5))
    links = tuple(
        encode_header(seal(make_header(group, number=number), group))
        for group, number in ((old, 5), (grown, 8))
    )
    story = replace(publish(), group=tuple(grown))
    state = replace(_state(story), height=7, validators=addresses(old))
    return Target(story, state, links)


def large(releases: int = 10_000) -> Target:
    """The same release on a ledger of many."""
    filler = tuple((bytes(keccak256(word(n))), n + 1) for n in range(2 * (releases - 1)))
    story = replace(publish(), more_words=filler)
    return Target(story, _state(story))


def random_flips(target: Target, count: int) -> Counter[tuple[str, object]]:
    """What refused so many random bits, always the same ones."""
    draw = random.Random(4)
    return Counter(target.refusal(draw.randrange(8 * len(target.data))) for _ in range(count))


def tell(title: str, found: Counter[tuple[str, object]]) -> None:
    """Print what refused how many."""
    lines = [f"{title}: {found.total()} flips, all refused"]
    for (part, number), times in sorted(found.items(), key=str):
        lines.append(f"  {part:9} step {number!s:4} {times}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The one-off."""
    for name, target in (("a small bundle", small()), ("a bundle with links", linked())):
        tell(f"every bit of {name}", Counter(map(target.refusal, range(8 * len(target.data)))))
    tell("random bits at 10,000 releases", random_flips(large(), int(sys.argv[1])))


if __name__ == "__main__":
    main()
