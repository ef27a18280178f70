"""Makes the golden vectors of docs/spec/proof.md: ``python -m tests.protocol.proof_vectors``.

Everything follows from test keys that are hashes of small numbers; signatures are deterministic, so
the files come out the same on every run. test_proof_vectors.py compares them with what is committed
and checks each by what the file alone says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protocol.header import (
    Header,
    Vote,
    block_hash,
    encode_header,
    quorum,
    seal_digest,
    with_seals,
)
from protocol.ids import Hash
from protocol.proof import Proof, assemble, mapping_slot, nested_slot
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

HOME = Path(__file__).resolve().parents[2] / "protocol" / "vectors"
ABOUT = "Test vectors of docs/spec/proof.md. All keys are test keys, made up for this file."
SETS = ((1, 0), (1, 1), (4, 0), (4, 3), (7, 0), (7, 255), (13, 256), (31, 0), (31, 2**31 - 1))

PRODUCT = mapping_slot(b"\xaa" * 32, 0)
RELEASE = nested_slot(1, b"\xaa" * 32, (1).to_bytes(32, "big"))
ABSENT = nested_slot(1, b"\xaa" * 32, (2).to_bytes(32, "big"))
WORDS = {PRODUCT: 2**256 - 1, RELEASE: 255}
MANY = {nested_slot(1, b"\xbb" * 32, n.to_bytes(32, "big")): n + 1 for n in range(400)}


def text(raw: bytes) -> str:
    return "0x" + raw.hex()


def texts(raws: Sequence[bytes]) -> list[str]:
    return [text(raw) for raw in raws]


def header_row(name: str, header: Header, group: Sequence[Validator]) -> dict[str, Any]:
    """A header and all that is computed from it."""
    return {
        "name": name,
        "header": text(encode_header(header)),
        "trusted": texts(addresses(group)),
        "number": header.number,
        "timestamp": header.timestamp,
        "state_root": text(header.state_root),
        "round": header.extra.round,
        "quorum": quorum(len(group)),
        "seal_digest": text(seal_digest(header)),
        "block_hash": text(block_hash(header)),
    }


def good_headers() -> list[dict[str, Any]]:
    """Every set of validators at round 0 and above, sealed by just a quorum; then the odd ones."""
    rows = []
    for count, round_number in SETS:
        group = validators(count)
        made = make_header(group, round_number=round_number, number=1000 + count)
        sealers = group[: quorum(count)]
        row = header_row(f"{count} validators, round {round_number}", seal(made, sealers), group)
        rows.append({**row, "sealers": texts(addresses(sealers))})
    group = validators(4)
    joining = Validator(40).address
    for name, made in (
        ("vote to add", make_header(group, vote=Vote(joining, add=True))),
        ("vote to drop", make_header(group, vote=Vote(group[0].address, add=False))),
        ("opaque fields follow", make_header(group, more=[b"\x07", bytes(32), [b"", [b"\x01"]]])),
        ("largest numbers", make_header(group, number=2**64 - 1, timestamp=2**64 - 1)),
    ):
        row = header_row(name, seal(made, group), group)
        rows.append({**row, "sealers": texts(addresses(group))})
    return rows


def bad_headers() -> list[dict[str, Any]]:
    """Headers that parse and are not to be believed, each with the reason."""
    group, stranger = validators(4), Validator(99)
    made = make_header(group)
    sealed = seal(made, group[:3])
    mirrored, last = mirror(sealed.extra.seals[0]), sealed.extra.seals[2]
    cases = {
        "no-quorum": [seal(made, group[:2]), made, with_seals(made, [bytes(65)] * 5)],
        "foreign-seal": [seal(made, [*group[:3], stranger]), moved_seals(group)],
        "duplicate-seal": [seal(made, [*group[:3], group[2]])],
        "bad-seal": [
            with_seals(made, [mirrored, *sealed.extra.seals[1:]]),
            with_seals(made, [*sealed.extra.seals[:2], last[:64] + bytes([last[64] + 27])]),
            with_seals(made, [*sealed.extra.seals[:2], bytes(65)]),
        ],
        "validators-changed": [seal(make_header(validators(5)), validators(5))],
        "genesis": [seal(make_header(group, number=0), group)],
        "validators-by-contract": [make_header([])],
    }
    return [
        {
            "reason": reason,
            "header": text(encode_header(header)),
            "trusted": texts(addresses(group)),
        }
        for reason, headers in cases.items()
        for header in headers
    ]


def moved_seals(group: Sequence[Validator]) -> Header:
    """The seals of round 1 under the header of round 0."""
    other = seal(make_header(group, round_number=1), group)
    return with_seals(make_header(group), other.extra.seals)


def mirror(one: bytes) -> bytes:
    """The second signature that the curve would accept: n - s and the other recovery id."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(one[32:64], "big")
    return one[:32] + s.to_bytes(32, "big") + bytes([1 - one[64]])


def links() -> list[dict[str, Any]]:
    """Changes of the validators: what `accepted` is, seen from the set trusted before."""
    old, grown = validators(4), validators(5)
    half = sorted([*old[:2], *validators(3, start=40)], key=lambda one: one.address)
    joined = [one for one in grown if one not in old]
    rows = (
        ("one joins, all seal", seal(make_header(grown), grown), None),
        ("one joins, 3 of the 4 known and the new one seal", seal(make_header(grown),
         sorted([*old[:3], *joined], key=lambda one: one.address)), None),
        ("one joins, the new quorum is missed", seal(make_header(grown), old[:3]), "no-quorum"),
        ("only 2 of the 4 known stay", seal(make_header(half), half), "no-overlap"),
        ("sealed by one who left", seal(make_header(old[:3]), old), "no-quorum"),
        ("seals not ascending", seal(make_header(grown), grown[::-1]), "seal-order"),
    )  # fmt: skip
    return [
        {
            "name": name,
            "header": text(encode_header(header)),
            "trusted": texts(addresses(old)),
            "reason": reason,
            "validators": texts(header.extra.validators) if reason is None else None,
        }
        for name, header, reason in rows
    ]


def proof_row(name: str, proof: Proof, world: World, slots: Sequence[Hash]) -> dict[str, Any]:
    return {
        "name": name,
        "validators": texts(addresses(world.group)),
        "contract": text(CONTRACT),
        "code_hash": text(CODE_HASH),
        "slots": texts(slots),
        "header": text(proof.header),
        "nodes": texts(proof.nodes),
    }


def good_proofs() -> list[dict[str, Any]]:
    """Proofs with what they prove."""
    small = World(WORDS, accounts=3, group=validators(1))
    large = World({**WORDS, **MANY}, accounts=500)
    rows = []
    for name, world, slots, round_number in (
        ("small: 1 validator, round 1", small, (PRODUCT, RELEASE, ABSENT), 1),
        ("large: 4 validators, 402 words, 501 accounts", large, (PRODUCT, RELEASE, ABSENT), 0),
        ("absence alone", large, (ABSENT,), 0),
        ("no slot: the head alone", large, (), 0),
        ("empty storage", World({}), (PRODUCT,), 0),
    ):
        raw = encode_header(world.header(round_number=round_number))
        proof = assemble(raw, world.get_proof(slots))
        values = [text(world.words.get(slot, 0).to_bytes(32, "big")) for slot in slots]
        rows.append({**proof_row(name, proof, world, slots), "values": values})
    return rows


def bad_proofs() -> list[dict[str, Any]]:
    """The large proof, spoiled; each with reason and step."""
    slots = (PRODUCT, RELEASE)
    world = World({**WORDS, **MANY}, accounts=500)
    proxy = World({**WORDS, **MANY}, accounts=500, code_hash=Hash(b"\x99" * 32))
    halted = World({**WORDS, **MANY, RELEASE: 511}, accounts=500)
    good, other, newer = (
        assemble(w.raw_header(), w.get_proof(slots)) for w in (world, proxy, halted)
    )
    nodes, group = good.nodes, world.group
    unordered = encode_header(world.header(sealed_by=group[::-1]))
    cases = (
        ("node left over", Proof(good.header, (*nodes, bytes(40))), "surplus-nodes", 8),
        ("node twice", Proof(good.header, (*nodes, nodes[-1])), "surplus-nodes", 8),
        ("nodes in another order", Proof(good.header, nodes[::-1]), "surplus-nodes", 8),
        ("node of the storage missing", Proof(good.header, nodes[:-1]), "node-missing", 7),
        ("node of the account missing", Proof(good.header, nodes[1:]), "node-missing", 5),
        ("other code", other, "wrong-code", 6),
        ("newer header over older nodes", Proof(newer.header, nodes), "node-missing", 5),
        ("seals not ascending", Proof(unordered, nodes), "seal-order", 4),
        ("header cut short", Proof(good.header[:-1], nodes), "rlp-truncated", 2),
        ("byte after the header", Proof(good.header + b"\0", nodes), "rlp-trailing", 2),
        ("node too large", Proof(good.header, (*nodes, bytes(533))), "node-size", 1),
    )
    return [
        {**proof_row(name, proof, world, slots), "reason": reason, "step": step}
        for name, proof, reason, step in cases
    ]


def files() -> dict[str, dict[str, Any]]:
    """All vectors, by file name."""
    headers = {"headers": good_headers(), "refused": bad_headers(), "links": links()}
    proofs = {"proofs": good_proofs(), "refused": bad_proofs()}
    return {
        "proof-headers.json": {"about": ABOUT, **headers},
        "proof-states.json": {"about": ABOUT, **proofs},
    }


def written(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    for file_name, content in files().items():
        (HOME / file_name).write_text(written(content))
