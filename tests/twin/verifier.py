"""Verifies a bundle from docs/spec alone: the twin of `protocol`, sharing no line and no idea.

Guarantee: what it accepts follows from the pages (proof.md, bundle.md, trust.md, reanchor.md,
commitments.md, manifest.md, receipt.md), the records of contracts/IReleaseLedger.sol and the
standards they cite. All up to step 15 was written without reading `protocol`; links, memory and
re-anchoring from the pages as well, but by someone who had seen some of the other side. Where the
two agree, the pages are enough, and a mistake would have to be made twice.

Rules: tables and plain values instead of classes. The EIP-712 type strings are the only description
of the records: their CBOR form, their ranges and their hashes are derived from them. Other
libraries where there are some (`cbor2`, `rlp`, `eth_utils`), and own arithmetic on secp256k1.
Whatever is refused raises `Refusal` with the step of bundle.md, section 3, of trust.md, section 2,
or of reanchor.md, section 3. What is trusted is a mapping that goes in and, moved, comes out.

It does not store that mapping, look at a clock, or decide policy. It is one file, to be read beside
the pages.
"""

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import cbor2
import rlp
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_utils import keccak
from rlp.exceptions import RLPException

keccak_of = lru_cache(4096)(keccak)

HEADER_MAX, STATIC_MAX, ENVELOPE_MAX, SIGNER_MAX, LINKS_MAX = 8192, 16384, 8192, 128, 16
NODES_MAX, NODE_MIN, NODE_MAX = 128, 32, 532
FRESH_MAX = 17 * HEADER_MAX + NODES_MAX * NODE_MAX + 8192
BUNDLE_MAX = STATIC_MAX + FRESH_MAX
LINK_SEALS_MAX = 512
PATH_MAX, ACK_MAX = 64, FRESH_MAX + 4096


class Refusal(Exception):
    """Something does not hold: `step` says where, `why` in a word or two.

    Readers that several steps use say 0; the step that uses them says which it is (`at`).
    """

    def __init__(self, step: int | str, why: str):
        super().__init__(f"step {step}: {why}")
        self.step = step
        self.why = why


def require(holds: bool, step: int | str, why: str) -> None:
    if not holds:
        raise Refusal(step, why)


@contextmanager
def at(step: int | str) -> Iterator[None]:
    """Says which step it was, for readers that several steps use."""
    try:
        yield
    except Refusal as refusal:
        raise Refusal(step, refusal.why) from refusal


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# ---------------------------------------------------------------------------------------------
# CBOR: manifest.md, section 1. Decoded by cbor2, and encoded again to see that it had this form.
# ---------------------------------------------------------------------------------------------


def head_of(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise Refusal(0, "number beyond 64 bits")


def cbor(value: Any, levels: int = 16) -> bytes:
    """The one encoding of a value; `levels` of nesting are left."""
    require(levels >= 0, 0, "nested too deep")
    match value:
        case None | False | True:
            return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
        case int():
            return head_of(0, value) if value >= 0 else head_of(1, -1 - value)
        case bytes():
            return head_of(2, len(value)) + value
        case str():
            text = value.encode()
            return head_of(3, len(text)) + text
        case list():
            return head_of(4, len(value)) + b"".join(cbor(item, levels - 1) for item in value)
        case dict():
            require(all(type(key) in (int, bytes, str) for key in value), 0, "kind of map key")
            pairs = sorted((cbor(key), cbor(item, levels - 1)) for key, item in value.items())
            return head_of(5, len(value)) + b"".join(key + item for key, item in pairs)
        case cbor2.CBORTag():
            return head_of(6, value.tag) + cbor(value.value, levels - 1)
    raise Refusal(0, f"no place for {type(value).__name__} in CBOR")


def tags_in(value: Any) -> Iterator[int]:
    if isinstance(value, cbor2.CBORTag):
        yield value.tag
        yield from tags_in(value.value)
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tags_in(item)


def uncbor(data: bytes, *tags: int) -> Any:
    """The value in deterministic CBOR, with no tags but those named."""
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Refusal(0, "not CBOR") from error
    require(cbor(value) == data, 0, "not deterministic CBOR")
    require(set(tags_in(value)) <= set(tags), 0, "tag")
    return value


def members(value: Any, count: int) -> list[Any]:
    require(type(value) is list and len(value) == count, 0, f"not an array of {count}")
    return list(value)


def octets(value: Any, least: int, most: int) -> bytes:
    require(type(value) is bytes and least <= len(value) <= most, 0, f"not {least} to {most} bytes")
    return bytes(value)


def unsigned(value: Any, bits: int) -> int:
    require(
        type(value) is int and 0 <= value < 1 << bits, 0, f"not an unsigned number of {bits} bits"
    )
    return int(value)


# ---------------------------------------------------------------------------------------------
# Records: commitments.md, sections 2 to 5 and 8, and the structs of IReleaseLedger.sol
# ---------------------------------------------------------------------------------------------

TYPES = {
    "Phase": "uint16 bps,uint32 delay,uint32 minConfirmed,uint16 maxFailureBps,uint32 gateDeadline",
    "Terms": "bytes32 productId,uint64 version,uint32 securityCounter,bytes32 imageDigest,"
    "bytes32 manifestDigest,uint64 imageSize,uint32 hardwareMin,uint32 hardwareMax,"
    "uint64 minVersion,uint64 notBefore,uint64 expiry,uint8 requiredAttestations,bool critical,"
    "uint32 keyEpoch,Phase[] rollout",
    "SigningKey": "bytes32 keyId,uint32 validThrough",
    "HaltRule": "uint32 minFailures,uint16 maxFailureBps",
    "Governance": "address[] approvers,uint8 threshold,uint32 epoch,address[] guardians,"
    "address[] auditors,address[] reporters,address enroller,SigningKey[] keys,HaltRule haltRule,"
    "uint32 releaseDelay,uint32 governanceDelay",
    "Head": "uint32 latestRelease,uint64 version,uint32 securityCounter,uint64 pausedAt,"
    "uint64 pausedTotal,uint32 pauses",
    "Product": "Governance governance,bytes32 other,uint64 effectiveAt,Head head",
    "State": "uint64 startsAt,uint256 word,bytes32 logRoot",
    "Approval": "Terms terms,uint32 epoch,uint64 validUntil",
    "Amendment": "bytes32 productId,Governance next,uint32 epoch,uint64 validUntil",
    "Decision": "bytes32 productId,uint32 releaseId,uint8 action,uint32 nonce,uint32 epoch,"
    "uint64 validUntil",
}
LIST_MAX = {"Phase[]": 4}  # 16 for every other list
STATE_WORD = {
    "status": (0, 4),
    "flags": (4, 4),
    "halts": (8, 8),
    "attested": (16, 8),
    "haltedAt": (24, 40),
    "confirmed": (64, 32),
    "failed": (96, 32),
    "baselineConfirmed": (128, 32),
    "baselineFailed": (160, 32),
    "haltedTotal": (192, 32),
    "logSize": (224, 32),
}


@cache
def fields(name: str) -> list[tuple[str, str]]:
    return [(kind, member) for kind, member in (part.split() for part in TYPES[name].split(","))]


@cache
def type_hash(name: str) -> bytes:
    """keccak(encodeType): the type itself, then those it refers to, by name."""
    seen, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        seen.add(current)
        kinds = {kind.removesuffix("[]") for kind, _ in fields(current)}
        waiting += [kind for kind in kinds if kind in TYPES and kind not in seen]
    return keccak(
        "".join(f"{part}({TYPES[part]})" for part in [name, *sorted(seen - {name})]).encode()
    )


def record(kind: str, value: Any) -> Any:
    """Reads a value of a Solidity type from its CBOR form (bundle.md, section 1)."""
    if kind.endswith("[]"):
        require(type(value) is list and len(value) <= LIST_MAX.get(kind, 16), 0, "list too long")
        return [record(kind.removesuffix("[]"), item) for item in value]
    if kind in TYPES:
        parts = zip(fields(kind), members(value, len(fields(kind))), strict=True)
        return {member: record(of, item) for (of, member), item in parts}
    if kind == "bool":
        require(type(value) is bool, 0, "not a bool")
        return value
    if kind == "uint256":
        return int.from_bytes(octets(value, 32, 32), "big")
    if kind.startswith("uint"):
        return unsigned(value, int(kind.removeprefix("uint")))
    size = 20 if kind == "address" else 32
    return octets(value, size, size)


def word(value: int | bytes) -> bytes:
    return value.rjust(32, b"\0") if isinstance(value, bytes) else int(value).to_bytes(32, "big")


def encode_member(kind: str, value: Any) -> bytes:
    if kind.endswith("[]"):
        return keccak_of(b"".join(encode_member(kind.removesuffix("[]"), item) for item in value))
    return hash_struct(kind, value) if kind in TYPES else word(value)


def hash_struct(kind: str, value: Mapping[str, Any]) -> bytes:
    parts = [encode_member(of, value[member]) for of, member in fields(kind)]
    return keccak_of(type_hash(kind) + b"".join(parts))


def product_commitment(trust: Mapping[str, Any], product: Mapping[str, Any], time: int) -> bytes:
    spelled_out, other = hash_struct("Governance", product["governance"]), product["other"]
    has_come = 0 != product["effectiveAt"] <= time
    current, pending = (other, spelled_out) if has_come else (spelled_out, other)
    head = b"".join(word(product["head"][member]) for _, member in fields("Head"))
    place = word(trust["chain_id"]) + word(trust["contract"]) + trust["product"]
    effective = word(product["effectiveAt"])
    tag = keccak_of(b"firmledger.product.v1")
    return keccak_of(tag + place + current + pending + effective + head)


def release_commitment(trust: Mapping[str, Any], release: Mapping[str, Any]) -> bytes:
    place = word(trust["chain_id"]) + word(trust["contract"]) + trust["product"]
    state = b"".join(word(release["state"][member]) for _, member in fields("State"))
    name = word(release["id"]) + release["termsHash"]
    return keccak_of(keccak_of(b"firmledger.release.v1") + place + name + state)


def approved_digest(trust: Mapping[str, Any], kind: str, message: Mapping[str, Any]) -> bytes:
    """Section 7: what approvers sign."""
    domain = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    named = [keccak(domain.encode()), keccak(b"Firmledger"), keccak(b"1")]
    place = word(trust["chain_id"]) + word(trust["contract"])
    return keccak(b"\x19\x01" + keccak(b"".join(named) + place) + hash_struct(kind, message))


def product_place(product: bytes) -> bytes:
    return keccak_of(product + word(0))


def release_place(product: bytes, release: int) -> bytes:
    return keccak_of(word(release) + keccak_of(product + word(1)))


def state_members(packed: int) -> dict[str, int]:
    return {name: packed >> lowest & (1 << bits) - 1 for name, (lowest, bits) in STATE_WORD.items()}


def cohort(product: bytes, release: int, device: bytes) -> int:
    return int.from_bytes(keccak(product + word(release) + device), "big") % 10000


def open_share(phases: Sequence[Mapping[str, int]], w: Mapping[str, int], running: int) -> int:
    """Section 8: the share of the fleet, in 1/10000, whose turn has come."""
    good, bad = w["confirmed"] - w["baselineConfirmed"], w["failed"] - w["baselineFailed"]
    share = 0
    for phase in phases:
        late = 0 != phase["gateDeadline"] <= running
        if (
            running < phase["delay"]
            or not (late or w["confirmed"] >= phase["minConfirmed"])
            or bad * 10000 > phase["maxFailureBps"] * (good + bad)
        ):
            break
        share = phase["bps"]
    return share


def eligible(
    head: Mapping[str, int],
    terms: Mapping[str, Any],
    release: Mapping[str, Any],
    device: Mapping[str, Any],
    now: int,
) -> str:
    """Section 8: why a device may or may not install, in the words of `Reason`."""
    w = state_members(release["state"]["word"])
    require(w["status"] in (1, 2, 3), 0, "unknown-status")
    running = now - head["pausedTotal"] - release["state"]["startsAt"] - w["haltedTotal"]
    turn = cohort(terms["productId"], release["id"], device["deviceId"])
    rules = {
        "ProductPaused": head["pausedAt"] != 0,
        "Revoked": w["status"] == 3,
        "Halted": w["status"] == 2,
        "WrongHardware": not terms["hardwareMin"] <= device["hardware"] <= terms["hardwareMax"],
        "AttestationsMissing": terms["requiredAttestations"] & ~w["attested"] != 0,
        "NotStarted": running < 0 or now < terms["notBefore"],
        "Expired": 0 != terms["expiry"] <= now,
        "NotNewer": device["version"] >= terms["version"],
        "StepRequired": device["version"] < terms["minVersion"],
        "CounterTooLow": terms["securityCounter"] < device["securityCounter"],
        "CohortWaits": turn >= open_share(terms["rollout"], w, running),
    }
    return next((reason for reason, applies in rules.items() if applies), "Eligible")


# ---------------------------------------------------------------------------------------------
# RLP and header: proof.md, sections 2 and 3
# ---------------------------------------------------------------------------------------------


def as_rlp(value: Any) -> bytes:
    return bytes(rlp.encode(value, infer_serializer=False))


def unrlp(data: bytes, most: int, levels: int, items: int) -> Any:
    """Decodes canonical RLP within the bounds of the table in section 2."""
    require(len(data) <= most, 0, "rlp too long")
    try:
        value = rlp.decode(data, strict=True)
    except (RLPException, RecursionError, IndexError) as error:
        raise Refusal(0, "rlp") from error
    require(as_rlp(value) == data, 0, "rlp not canonical")
    counted, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        counted += 1
        if not isinstance(item, bytes):
            require(level <= levels, 0, "rlp too deep")
            waiting += [(member, level + 1) for member in item]
    require(counted <= items, 0, "rlp of too many items")
    return value


def is_bytes(item: Any, *sizes: int) -> bool:
    return isinstance(item, bytes) and (not sizes or len(item) in sizes)


def is_list(item: Any) -> bool:
    return not isinstance(item, bytes)


def is_scalar(item: Any, most: int) -> bool:
    return isinstance(item, bytes) and len(item) <= most and not item.startswith(b"\0")


def read_header(data: bytes) -> dict[str, Any]:
    """Step 2: a header by its fields, with the two digests."""
    fixed = {0: 32, 1: 32, 2: 20, 3: 32, 4: 32, 5: 32, 6: 256, 13: 32, 14: 8}
    items = unrlp(data, HEADER_MAX, 8, 256)
    require(is_list(items) and 15 <= len(items) <= 32, 0, "header of other members")
    require(all(is_bytes(items[at_], size) for at_, size in fixed.items()), 0, "header field")
    require(all(is_scalar(items[at_], 8) for at_ in (8, 9, 10, 11)), 0, "header number")
    require(is_scalar(items[7], 32) and is_bytes(items[12]), 0, "difficulty or extra data")
    extra = unrlp(items[12], HEADER_MAX, 2, 136)
    require(is_list(extra) and len(extra) == 5, 0, "extra data of other members")
    vanity, validators, vote, round_, seals = extra
    require(is_bytes(vanity, 32) and is_scalar(round_, 4), 0, "vanity or round")
    require(int.from_bytes(round_, "big") < 1 << 31, 0, "round")
    require(is_list(validators) and len(validators) <= 64, 0, "validators")
    require(all(is_bytes(one, 20) for one in validators), 0, "validator")
    require(list(validators) == sorted(set(validators)), 0, "validators not ascending")
    require(is_list(vote) and len(vote) in (0, 2), 0, "vote")
    require(not vote or (is_bytes(vote[0], 20) and vote[1] in (b"", b"\xff")), 0, "vote")
    require(is_list(seals) and len(seals) <= 64, 0, "seals")
    require(all(is_bytes(one, 65) for one in seals), 0, "seal")

    def digest_with(round_shown: bytes) -> bytes:
        bare = as_rlp([vanity, validators, vote, round_shown, []])
        return keccak(as_rlp([*items[:12], bare, *items[13:]]))

    return {
        "raw": data,
        "state_root": items[3],
        "number": int.from_bytes(items[8], "big"),
        "time": int.from_bytes(items[11], "big"),
        "round": int.from_bytes(round_, "big"),
        "validators": list(validators),
        "seals": list(seals),
        "seal_digest": digest_with(round_),
        "block_hash": digest_with(b""),
    }


# ---------------------------------------------------------------------------------------------
# Seals: proof.md, section 4, steps 3 and 4; section 7. secp256k1 as SEC 2 gives it; recovery as in
# SEC 1, section 4.1.6.
# ---------------------------------------------------------------------------------------------

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
LARGEST_S = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
Point = tuple[int, int]


def add(a: Point | None, b: Point | None) -> Point | None:
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    if a == b:
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def double_add(x: int, y: int, z: int, b: Point | None) -> tuple[int, int, int]:
    """2 (x : y : z) + b in Jacobian coordinates; z = 0 is the point at infinity."""
    square = y * y % P
    s = 4 * x * square % P
    slope = 3 * x * x % P
    x, z = (slope * slope - 2 * s) % P, 2 * y * z % P
    y = (slope * (s - x) - 8 * square * square) % P
    if b is None:
        return x, y, z
    if z == 0:
        return b[0], b[1], 1
    zz = z * z % P
    h, r = (b[0] * zz - x) % P, (b[1] * zz * z - y) % P
    if h == 0:
        both = add((x * pow(zz, -1, P) % P, y * pow(zz * z, -1, P) % P), b)
        return (*both, 1) if both else (0, 1, 0)
    hh = h * h % P
    v, hhh = x * hh % P, h * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - y * hhh) % P, z * h % P


@lru_cache(1024)
def sealer_of(digest: bytes, seal: bytes) -> bytes | None:
    """The address that made a seal; None if it is not a seal at all."""
    r, s, v = int.from_bytes(seal[:32], "big"), int.from_bytes(seal[32:64], "big"), seal[64]
    if v > 1 or not 0 < r < N or not 0 < s <= LARGEST_S:
        return None
    y = pow(r**3 + 7, (P + 1) // 4, P)
    if (y * y - r**3 - 7) % P:
        return None
    point = (r, y if y % 2 == v else P - y)
    inverse = pow(r, -1, N)
    first, second = -int.from_bytes(digest, "big") * inverse % N, s * inverse % N
    sums = [None, G, point, add(G, point)]
    x, y, z = 0, 1, 0
    for bit in range(255, -1, -1):
        x, y, z = double_add(x, y, z, sums[(first >> bit & 1) + 2 * (second >> bit & 1)])
    if z == 0:
        return None
    zz = pow(z, -2, P)
    public = word(x * zz % P) + word(y * zz * pow(z, -1, P) % P)
    return keccak(public)[-20:]


def quorum(validators: int) -> int:
    return (2 * validators + 2) // 3


def sealed_header(
    data: bytes,
    trusted: Sequence[bytes] | None,
    seals_left: int = 64,
    heirs_of: Sequence[bytes] = (),
    above: int = 0,
) -> dict[str, Any]:
    """Steps 1 to 4; with nobody trusted, whether a link holds on its own (section 7)."""
    require(len(data) <= HEADER_MAX, 1, "header too large")
    with at(2):
        header = read_header(data)
    listed, seals = header["validators"], header["seals"]
    require(len(seals) <= seals_left, 3, "too-many-seals")
    if heirs_of and header["number"] > above:
        shared = len(set(heirs_of) & set(listed))
        require(shared >= quorum(len(set(heirs_of))), 3, "no-overlap")
    require(header["number"] != 0, 3, "genesis")
    require(bool(listed), 3, "validators-by-contract")
    require(trusted is None or set(listed) == set(trusted), 3, "validators-changed")
    require(quorum(len(listed)) <= len(seals) <= len(listed), 3, "no-quorum")
    sealers = [sealer_of(header["seal_digest"], seal) for seal in seals]
    require(None not in sealers, 3, "bad-seal")
    require(set(sealers) <= set(listed), 3, "foreign-seal")
    require(len(set(sealers)) == len(sealers), 3, "duplicate-seal")
    require(sealers == sorted(sealers, key=bytes), 4, "seal-order")
    return {**header, "sealers": sealers}


def believe(trusted: Sequence[bytes], link: Mapping[str, Any]) -> bool:
    """Section 7: whether enough of the trusted validators sealed a link."""
    return len(set(trusted) & set(link["sealers"])) >= quorum(len(set(trusted)))


# ---------------------------------------------------------------------------------------------
# Tries: proof.md, section 4, steps 5 to 8; section 5
# ---------------------------------------------------------------------------------------------

EMPTY_TRIE = keccak(as_rlp(b""))


def nibbles(data: bytes) -> list[int]:
    return [int(digit, 16) for digit in data.hex()]


def walk(root: bytes, path: bytes, nodes: Mapping[bytes, bytes], used: list[bytes]) -> bytes | None:
    """The value under a path (a hashed key), or None where the trie shows that there is none."""

    def follow(reference: Any) -> Any:
        if is_list(reference):
            require(len(as_rlp(reference)) < 32, 0, "bad-reference")
            return reference
        require(is_bytes(reference, 32), 0, "bad-reference")
        require(reference in nodes, 0, "node-missing")
        if reference not in used:
            used.append(reference)
        return unrlp(nodes[reference], NODE_MAX, 4, 532)

    if root == EMPTY_TRIE:
        return None
    left, node, branch_due = nibbles(path), follow(root), False
    while True:
        require(is_list(node) and len(node) in (2, 17), 0, "bad-node")
        if len(node) == 17:
            require(bool(left) and node[16] == b"", 0, "bad-branch")
            reference, left, branch_due = node[left[0]], left[1:], False
            if reference == b"":
                return None
            node = follow(reference)
            continue
        require(not branch_due, 0, "bad-extension")
        require(is_bytes(node[0]) and node[0] != b"", 0, "bad-path")
        flag, *part = nibbles(node[0])
        require(flag < 4 and (flag % 2 == 1 or part[0] == 0), 0, "bad-path")
        part = part if flag % 2 else part[1:]
        if flag >= 2:
            value = node[1]
            require(is_bytes(value) and 1 <= len(value) <= 110, 0, "bad-leaf")
            require(len(part) == len(left), 0, "bad-leaf")
            return bytes(value) if part == left else None
        require(1 <= len(part) < len(left), 0, "bad-extension")
        if left[: len(part)] != part:
            return None
        node, left, branch_due = follow(node[1]), left[len(part) :], True


def words_of(
    trust: Mapping[str, Any], root: bytes, slots: Sequence[bytes], given: Sequence[bytes]
) -> dict[bytes, bytes]:
    """Steps 5 to 8: the word of each slot of the pinned contract under a state root."""
    nodes, used = {keccak_of(node): node for node in given}, list[bytes]()
    with at(5):
        leaf = walk(root, keccak(trust["contract"]), nodes, used)
        require(leaf is not None, 5, "no-contract")
        account = unrlp(leaf or b"", 110, 1, 5)
        require(is_list(account) and len(account) == 4, 5, "bad-account")
        nonce, balance, storage, code = account
        require(is_scalar(nonce, 8) and is_scalar(balance, 32), 5, "bad-account")
        require(is_bytes(storage, 32) and is_bytes(code, 32), 5, "bad-account")
    require(code == trust["code_hash"], 6, "wrong-code")
    words = {}
    with at(7):
        for slot in sorted(set(slots)):
            leaf = walk(storage, keccak(slot), nodes, used)
            value = b"" if leaf is None else unrlp(leaf, 33, 0, 1)
            require(leaf is None or (is_scalar(value, 32) and value != b""), 7, "bad-word")
            words[slot] = word(value)
    require(used == [keccak_of(node) for node in given], 8, "surplus-nodes")
    return words


def verify_state(
    trust: Mapping[str, Any], header: bytes, nodes: Sequence[bytes], slots: Sequence[bytes]
) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """Steps 1 to 8, for pinned validators, contract and code hash."""
    require(len(header) <= HEADER_MAX and len(nodes) <= NODES_MAX, 1, "proof-oversized")
    require(all(NODE_MIN <= len(node) <= NODE_MAX for node in nodes), 1, "node-size")
    sealed = sealed_header(header, trust["validators"])
    return sealed, words_of(trust, sealed["state_root"], slots, nodes)


# ---------------------------------------------------------------------------------------------
# Envelope: manifest.md
# ---------------------------------------------------------------------------------------------

VENDOR = uuid.uuid5(uuid.NAMESPACE_DNS, "firmledger.invalid")
ED25519_KEY, P256_KEY = "Ed25519", "P-256"
ALGORITHMS = {-19: ED25519_KEY, -9: P256_KEY, -7: P256_KEY}


P_ED, D_ED = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19) % (2**255 - 19)


def edwards_key(raw: bytes) -> ed25519.Ed25519PublicKey:
    """Section 2: the point of RFC 8032, 5.1.3; eight times it must not be the neutral one."""
    octets(raw, 32, 32)
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number % (1 << 255)
    require(y < P_ED, 0, "y not below p")
    wanted = (y * y - 1) * pow(D_ED * y * y + 1, -1, P_ED) % P_ED
    roots = [pow(wanted, (P_ED + 3) // 8, P_ED)]
    roots.append(roots[0] * pow(2, (P_ED - 1) // 4, P_ED) % P_ED)
    x = next((root for root in roots if root * root % P_ED == wanted), None)
    require(x is not None and not (x == 0 and sign), 0, "not a point")
    for _ in range(3):  # either of x and -x: the order of both is the same
        t = D_ED * x * x * y * y
        x, y = (
            2 * x * y * pow(1 + t, -1, P_ED) % P_ED,
            (y * y + x * x) * pow(1 - t, -1, P_ED) % P_ED,
        )
    require((x, y) != (0, 1), 0, "point of small order")
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


@lru_cache(1024)
def read_key(data: bytes) -> tuple[str, Any]:
    """A COSE_Key of section 2, as its kind and a key of `cryptography`."""
    if len(data) == 40 and data.startswith(bytes.fromhex("a301012006215820")):
        return ED25519_KEY, edwards_key(data[8:])
    start, middle = bytes.fromhex("a401022001215820"), bytes.fromhex("225820")
    require(len(data) == 75 and data.startswith(start), 0, "not a public key")
    require(data[40:43] == middle, 0, "not a public key")
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), b"\4" + data[8:40] + data[43:]
        )
    except ValueError as error:
        raise Refusal(0, "not a point") from error
    return P256_KEY, point


def is_signature(kind: str, key: Any, signature: bytes, message: bytes) -> bool:
    try:
        if kind == ED25519_KEY:
            key.verify(signature, message)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def suit_digest(value: Any) -> bytes:
    algorithm, digest = members(value, 2)
    require(type(algorithm) is int and algorithm == -16, 0, "digest of another algorithm")
    return octets(digest, 32, 32)


def open_envelope(data: bytes) -> dict[str, Any]:
    """Sub-steps 1 to 4: the members of an envelope, each of which the digest covers."""
    require(len(data) <= ENVELOPE_MAX, 0, "envelope too large")
    envelope = uncbor(data, 107)
    require(isinstance(envelope, cbor2.CBORTag) and envelope.tag == 107, 0, "not an envelope")
    parts = envelope.value
    require(type(parts) is dict, 0, "members")
    known = {key for key in parts if type(key) is not str}
    require({2, 3} <= known <= {2, 3, 16, 20, 23}, 0, "members")
    require(all(type(part) is bytes for part in parts.values()), 0, "members")
    digest_part, block = members(uncbor(parts[2]), 2)
    digest = suit_digest(uncbor(octets(digest_part, 0, 64)))
    require(sha256(cbor(parts[3])) == digest, 0, "manifest digest")
    manifest = uncbor(parts[3])
    require(type(manifest) is dict, 0, "manifest is no map")
    for severable in {16, 20, 23} & set(parts):
        named = suit_digest(manifest.get(severable))
        require(named == sha256(cbor(parts[severable])), 0, "member digest")
    return {
        "digest": digest,
        "signed": digest_part,
        "block": octets(block, 0, ENVELOPE_MAX),
        "manifest": manifest,
        "notes": parts.get(23),
        "foreign": sorted({16, 20} & known),
        "integrated": len(known) < len(parts),
    }


def check_signature(envelope: Mapping[str, Any], signer: bytes) -> None:
    """Sub-step 5, with one key given."""
    kind, key = read_key(signer)
    block = uncbor(octets(envelope["block"], 0, 512), 18)
    require(isinstance(block, cbor2.CBORTag) and block.tag == 18, 0, "not a COSE_Sign1")
    protected, unprotected, payload, signature = members(block.value, 4)
    require(unprotected == {} and type(unprotected) is dict and payload is None, 0, "COSE_Sign1")
    named = uncbor(octets(protected, 0, 64))
    require(type(named) is dict and {1} <= set(named) <= {1, 4}, 0, "protected header")
    require(all(type(label) is int for label in named), 0, "protected header")
    algorithm = named[1]
    require(type(algorithm) is int and ALGORITHMS.get(algorithm) == kind, 0, "algorithm")
    require(4 not in named or named[4] == sha256(signer), 0, "another key is named")
    message = cbor(["Signature1", protected, b"", envelope["signed"]])
    require(is_signature(kind, key, octets(signature, 64, 64), message), 0, "signature")


def encryption_info(data: bytes) -> int:
    """Sub-step 7. Returns the key epoch, the first four bytes of the kid."""
    info = uncbor(octets(data, 0, 512), 96)
    try:
        iv = info.value[1][5]
        recipient = info.value[3][0][1]
        kid, ephemeral, wrapped = recipient[4], recipient[-1], info.value[3][0][2]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise Refusal(0, "encryption info") from error
    require(is_bytes(iv, 16) and is_bytes(kid, 16) and is_bytes(wrapped, 24), 0, "encryption info")
    require(read_key(cbor(ephemeral))[0] == P256_KEY, 0, "ephemeral key")
    party = [cbor({1: -29}), {4: kid, -1: ephemeral}, wrapped]
    whole = cbor2.CBORTag(96, [b"", {1: -65534, 5: iv}, None, [party]])
    require(cbor(whole) == data, 0, "encryption info")
    return int.from_bytes(kid[:4], "big")


def content_key(data: bytes, private: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    """Section 5: what the class key opens, and the first counter block."""
    encryption_info(data)
    info = uncbor(data, 96).value
    _, recipient, wrapped = info[3][0]
    ephemeral = read_key(cbor(recipient[-1]))[1]
    party = [None, None, None]
    context = [-3, party, party, [128, cbor({1: -29}), b"SUIT Payload Encryption"]]
    derived = HKDF(hashes.SHA256(), 16, salt=None, info=cbor(context))
    key = derived.derive(private.exchange(ec.ECDH(), ephemeral))
    try:
        return keywrap.aes_key_unwrap(key, wrapped), info[1][5]
    except keywrap.InvalidUnwrap as error:
        raise Refusal(0, "another class key") from error


def decrypted(key: bytes, iv: bytes, payload: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(iv)).decryptor().update(payload)


def read_manifest(manifest: Mapping[Any, Any]) -> dict[str, Any]:
    """Sub-steps 6 and 7: values from their places, and everything else compared with section 4."""
    try:
        common = uncbor(manifest[3])
        sequence, install = uncbor(common[4]), uncbor(manifest[20])
        product, version = common[2][0][0], manifest[2]
        image, size = suit_digest(uncbor(sequence[3][3])), sequence[3][14]
        counter, payload = sequence[3][-256], suit_digest(uncbor(sequence[13][3]))
        info, notes = install[11][19], manifest.get(23)
    except (KeyError, IndexError, TypeError) as error:
        raise Refusal(0, "manifest") from error
    octets(product, 32, 32)
    unsigned(version, 64), unsigned(counter, 32)
    require(1 <= unsigned(size, 64) <= 2**36 - 16, 0, "image size")
    device_class = uuid.uuid5(VENDOR, product.hex())
    image_values = {
        1: VENDOR.bytes,
        2: device_class.bytes,
        3: cbor([-16, image]),
        14: size,
        -256: counter,
    }
    payload_values = {3: cbor([-16, payload]), 14: size}
    shared = [12, 0, 20, image_values, 1, 15, 2, 15, -256, 15, 12, 1, 20, payload_values]
    fetch = [12, 1, 20, {21: "payload"}, 21, 2, 3, 15]
    copy = [12, 0, 20, {19: info, 22: 1}, 22, 2, 3, 15]
    expected = {
        1: 1,
        2: version,
        3: cbor({2: [[product], [b"payload"]], 4: cbor(shared)}),
        7: cbor([12, 0, 3, 15]),
        9: cbor([12, 0, 23, 2]),
        20: cbor(fetch + copy),
    }
    if 23 in manifest:
        expected[23] = [-16, suit_digest(notes)]
    require(cbor(expected) == cbor(dict(manifest)), 0, "foreign manifest")
    return {
        "productId": product,
        "version": version,
        "securityCounter": counter,
        "imageDigest": image,
        "imageSize": size,
        "payloadDigest": payload,
        "keyEpoch": encryption_info(info),
    }


def read_notes(data: bytes | None) -> dict[str, str]:
    """Sub-step 8."""
    if data is None:
        return {}
    notes = uncbor(data)
    require(type(notes) is dict and bool(notes), 0, "notes")
    for language, said in notes.items():
        require(type(language) is str and len(language.encode()) <= 35, 0, "language")
        require(type(said) is dict and set(said) == {2} and type(said[2]) is str, 0, "notes")
        require(len(said[2].encode()) <= 2048, 0, "notes too long")
    return {language: said[2] for language, said in notes.items()}


def check_envelope(envelope: Mapping[str, Any], signer: bytes) -> dict[str, Any]:
    """Sub-steps 5 to 8."""
    require(not envelope["integrated"], 0, "integrated payload")
    check_signature(envelope, signer)
    require(not envelope["foreign"], 0, "members 16 and 20")
    return {**read_manifest(envelope["manifest"]), "notes": read_notes(envelope["notes"])}


# ---------------------------------------------------------------------------------------------
# Bundle: bundle.md
# ---------------------------------------------------------------------------------------------


def read_fresh(data: bytes) -> dict[str, Any]:
    """The fresh part, in the form of section 1."""
    require(len(data) <= FRESH_MAX, 0, "fresh part too large")
    number, links, header, nodes, product, release = members(uncbor(data), 6)
    require(unsigned(number, 64) == 1, 0, "format")
    require(type(links) is list and len(links) <= LINKS_MAX, 0, "links")
    require(type(nodes) is list and len(nodes) <= NODES_MAX, 0, "nodes")
    if release is not None:
        named, terms_hash, state = members(release, 3)
        release = {
            "id": unsigned(named, 32),
            "termsHash": octets(terms_hash, 32, 32),
            "state": record("State", state),
        }
    return {
        "links": [octets(link, 0, HEADER_MAX) for link in links],
        "header": octets(header, 0, HEADER_MAX),
        "nodes": [octets(node, 0, NODE_MAX) for node in nodes],
        "product": record("Product", product),
        "release": release,
    }


def read_static(data: bytes) -> dict[str, Any]:
    require(len(data) <= STATIC_MAX, 0, "static part too large")
    number, envelope, signer, terms = members(uncbor(data), 4)
    require(unsigned(number, 64) == 1, 0, "format")
    return {
        "envelope": octets(envelope, 0, ENVELOPE_MAX),
        "signer": octets(signer, 0, SIGNER_MAX),
        "terms": record("Terms", terms),
    }


def one_block(step: str, *headers: Mapping[str, Any] | None) -> None:
    """Step T6, and c of the links: of one height there is one block."""
    known = [header for header in headers if header]
    blocks = {(header["number"], header["block_hash"]) for header in known}
    require(len(blocks) == len({number for number, _ in blocks}), step, "equivocation")


def follow_links(
    trust: Mapping[str, Any], links: Sequence[bytes]
) -> tuple[list[bytes], Mapping[str, Any] | None, int]:
    """Step T4: the validators at the end of the links, the one compared last, the last's number."""
    trusted, compared = list(trust["validators"]), None
    seals_left, before = LINK_SEALS_MAX, None
    for link in links:
        with at("T4"):
            header = sealed_header(link, None, seals_left, trusted, trust["height"])
        seals_left -= len(header["seals"])
        number, believed = header["number"], believe(trusted, header)
        require(number <= trust["height"] or believed, "T4", "no-overlap")
        if number >= trust["height"] and believed:
            one_block("T4", trust.get("header"), header)
            one_block("T4", compared, header)
            compared = header
        require(before is None or number > before, "T4", "link-order")
        before = number
        if number > trust["height"]:
            trusted = header["validators"]
    return trusted, compared, before or 0


def prove_fresh(fresh: Mapping[str, Any], trust: Mapping[str, Any]) -> dict[str, Any]:
    """Steps 1 to 10."""
    product, release = fresh["product"], fresh["release"]
    at_product = product_place(trust["product"])
    at_release = release_place(trust["product"], release["id"]) if release else at_product
    header, words = verify_state(trust, fresh["header"], fresh["nodes"], [at_product, at_release])
    expected = product_commitment(trust, product, header["time"])
    require(words[at_product] == expected, 9, "product")
    if release:
        require(words[at_release] != bytes(32), 10, "no such release")
        require(words[at_release] == release_commitment(trust, release), 10, "release")
        status = state_members(release["state"]["word"])["status"]
        require(status in (1, 2, 3), 10, "unknown-status")
    else:
        require(product["head"]["latestRelease"] == 0, 10, "release withheld")
    return {"header": header, "product": product, "release": release}


def verify_fresh(data: bytes, trust: Mapping[str, Any]) -> dict[str, Any]:
    """Steps T1 to T8: what the ledger says of a product at a block, and what is `trusted` then."""
    with at("T1"):
        fresh = read_fresh(data)
    now, passed = trust.get("now"), max(trust.get("now") or 0, trust.get("build_time", 0))
    require(not trust.get("evidence"), "T2", "frozen")
    period = trust.get("trusting_period", 0)
    require(0 in (trust["time"], period) or passed - trust["time"] <= period, "T3", "lapsed")
    validators, link, last = follow_links(trust, fresh["links"])
    known = trust.get("header")
    try:
        ledger = prove_fresh(fresh, {**trust, "validators": validators})
    except Refusal as refusal:
        if refusal.step in range(5, 11):  # a sealed header is evidence, whatever stands beside it
            header = sealed_header(fresh["header"], validators)
            one_block("T6", known, header)
            one_block("T6", link, header)
        raise
    header = ledger["header"]
    require(header["number"] >= max(trust["height"], last), "T5", "below the height trusted")
    one_block("T6", known, header)
    one_block("T6", link, header)
    require(header["time"] >= trust["time"], "T7", "before the time trusted")
    require(now is None or header["time"] <= now + 600, "T8", "from the future")
    return {**ledger, "trusted": moved(trust, ledger, validators)}


def moved(
    trust: Mapping[str, Any], ledger: Mapping[str, Any], validators: list[bytes]
) -> dict[str, Any]:
    """What is trusted after a proof that holds (trust.md, "What moves")."""
    header, release = ledger["header"], ledger["release"]
    statuses = dict(trust.get("statuses", []))
    if release:
        statuses[release["id"]] = state_members(release["state"]["word"])["status"]
    return {
        **trust,
        "height": header["number"],
        "time": header["time"],
        "header": header,
        "validators": validators,
        "newest": max(trust.get("newest", 0), ledger["product"]["head"]["version"]),
        "statuses": sorted(statuses.items())[-16:],
    }


def require_young(trust: Mapping[str, Any], ledger: Mapping[str, Any]) -> None:
    """Step T9."""
    latest = max(trust.get("now") or 0, ledger["trusted"]["time"], trust.get("build_time", 0))
    age = latest - ledger["header"]["time"]
    require("max_age" not in trust or age <= trust["max_age"], "T9", "stale")


def state_bytes(trust: Mapping[str, Any]) -> bytes:
    """The trusted state as a device stores it (trust.md, section 1)."""
    header, statement = trust.get("header"), trust.get("statement")
    evidence = [shown["raw"] for shown in trust.get("evidence", [])]
    return cbor([
        1, trust["height"], trust["time"], header["raw"] if header else b"",
        trust["validators"], trust.get("newest", 0), [list(s) for s in trust.get("statuses", [])],
        evidence, list(statement.values()) if statement else None,
    ])  # fmt: skip


def verify_static(data: bytes, ledger: Mapping[str, Any]) -> dict[str, Any]:
    """Steps 11 to 15: that the static part is what the release was agreed about."""
    with at("T1"):
        static = read_static(data)
    release = ledger["release"]
    terms, signer = static["terms"], static["signer"]
    require(release is not None, 11, "nothing released")
    require(hash_struct("Terms", terms) == release["termsHash"], 11, "terms")
    with at(12):
        read_key(signer)
    listed = ledger["product"]["governance"]["keys"]
    keys = {key["keyId"]: key["validThrough"] for key in reversed(listed)}
    require(keys.get(sha256(signer), -1) >= release["id"], 12, "signer")
    with at(13):
        envelope = open_envelope(static["envelope"])
        require(envelope["digest"] == terms["manifestDigest"], 13, "manifest")
    with at(14):
        manifest = check_envelope(envelope, signer)
    for member in manifest.keys() & terms.keys():
        require(manifest[member] == terms[member], 15, member)
    return {"terms": terms, "manifest": manifest, "key_id": sha256(signer)}


def verify_bundle(data: bytes, trust: Mapping[str, Any]) -> dict[str, Any]:
    """All steps. `trust`: chain_id, contract, code_hash, product, validators, height, time.

    Where there are any: `header` of the block accepted last, as `read_header` returns it; evidence,
    newest, statuses, statement; now, build_time, trusting_period, max_age.
    """
    with at("T1"):
        require(len(data) <= BUNDLE_MAX, 0, "bundle too large")
        number, static, fresh = members(uncbor(data), 3)
        require(unsigned(number, 64) == 1, 0, "format")
        require(type(fresh) is bytes and (static is None or type(static) is bytes), 0, "parts")
        if static is not None:
            read_static(static)
    ledger = verify_fresh(fresh, trust)
    require_young(trust, ledger)
    return ledger if static is None else {**ledger, **verify_static(static, ledger)}


# ---------------------------------------------------------------------------------------------
# Re-anchoring: reanchor.md
# ---------------------------------------------------------------------------------------------

REANCHOR_MAX, STATEMENT_MAX, SIGNATURES_MAX, SIGNATURE_MAX = 6144, 2048, 16, 192


def read_statement(data: bytes) -> dict[str, Any]:
    """Section 2: the members of a statement, in their order."""
    name, number, product, sequence, chain, contract, code, listed, height, time = members(
        uncbor(octets(data, 0, STATEMENT_MAX)), 10
    )
    require(name == "firmledger-reanchor" and type(name) is str, 0, "not a statement")
    require(unsigned(number, 64) == 1, 0, "format of the statement")
    require(unsigned(sequence, 64) >= 1, 0, "sequence")
    require(unsigned(chain, 64) < 1 << 53 and unsigned(height, 64) < 1 << 63, 0, "too large")
    require(unsigned(time, 64) <= 1 << 40, 0, "time")
    require(type(listed) is list and 1 <= len(listed) <= 64, 0, "validators")
    validators = [octets(one, 20, 20) for one in listed]
    require(validators == sorted(set(validators)), 0, "validators not ascending")
    octets(product, 32, 32), octets(contract, 20, 20), octets(code, 32, 32)
    row = (name, number, product, sequence, chain, contract, code, validators, height, time)
    names = "context format product sequence chain_id contract code_hash validators height time"
    return dict(zip(names.split(), row, strict=True))


def read_recovery_signature(data: bytes) -> tuple[bytes, int, bytes, bytes]:
    """Section 2: key id, algorithm, protected header and signature."""
    block = uncbor(octets(data, 0, SIGNATURE_MAX), 18)
    require(isinstance(block, cbor2.CBORTag) and block.tag == 18, 0, "not a COSE_Sign1")
    protected, unprotected, payload, signature = members(block.value, 4)
    require(unprotected == {} and type(unprotected) is dict and payload is None, 0, "COSE_Sign1")
    named = uncbor(octets(protected, 0, 64))
    require(type(named) is dict and set(named) == {1, 4}, 0, "protected header")
    require(type(named[1]) is int, 0, "algorithm")
    return octets(named[4], 32, 32), named[1], protected, octets(signature, 64, 64)


def verify_reanchor(data: bytes, trust: Mapping[str, Any]) -> dict[str, Any]:
    """Section 3: the statement, by steps R1 to R5. `trust`: also recovery keys and threshold."""
    with at("R1"):
        require(len(data) <= REANCHOR_MAX, 0, "too large")
        number, inner, listed = members(uncbor(data), 3)
        require(unsigned(number, 64) == 1 and type(listed) is list, 0, "not a re-anchor")
        require(type(inner) is bytes and len(listed) <= SIGNATURES_MAX, 0, "not a re-anchor")
        statement = read_statement(inner)
        signatures = [read_recovery_signature(octets(one, 0, SIGNATURE_MAX)) for one in listed]
        named = [signature[0] for signature in signatures]
        require(named == sorted(set(named)), 0, "signatures not ascending")
    keys = {sha256(key): read_key(key) for key in trust["recovery_keys"]}
    require(statement["product"] == trust["product"], "R2", "wrong-product")
    enough = trust["threshold"] <= len(signatures) <= len(keys)
    require(enough, "R3", "too-few-signatures")
    for key_id, algorithm, protected, signature in signatures:
        require(key_id in keys, "R4", "unknown-recovery-key")
        kind, key = keys[key_id]
        require(ALGORITHMS.get(algorithm) == kind, "R4", "wrong-algorithm")
        message = cbor(["Signature1", protected, b"", inner])
        require(is_signature(kind, key, signature, message), "R4", "bad-signature")
    last = trust.get("statement")
    require(statement["sequence"] > (last["sequence"] if last else 0), "R5", "old-statement")
    return statement


def reanchor(data: bytes, trust: Mapping[str, Any]) -> dict[str, Any]:
    """Section 3: what is trusted after a statement."""
    statement = verify_reanchor(data, trust)
    same = all(statement[name] == trust[name] for name in ("chain_id", "contract"))
    named = {name: statement[name] for name in ("chain_id", "contract", "code_hash", "validators")}
    return {
        **trust,
        **named,
        "height": max(trust["height"], statement["height"]),
        "time": max(trust["time"], statement["time"]),
        "header": None,
        "evidence": [],
        "newest": trust.get("newest", 0) if same else 0,
        "statuses": trust.get("statuses", []) if same else [],
        "statement": statement,
    }


def split_stick(data: bytes) -> tuple[bytes, bytes]:
    """A file for a stick as its bundle and its payload (section 4)."""
    require(data[:8] == b"FLBUNDL1" and len(data) >= 12, 0, "not a file for a stick")
    end = 12 + int.from_bytes(data[8:12], "big")
    require(12 < end <= 12 + BUNDLE_MAX, 0, "size of the bundle")
    require(len(data) >= end, 0, "file cut short")
    return data[12:end], data[end:]


# ---------------------------------------------------------------------------------------------
# Receipts: receipt.md, and bundle.md, section 5
# ---------------------------------------------------------------------------------------------

OUTCOMES = {1: "confirmed", 2: "failed", 3: "rolled-back", 4: "refused"}


def text(value: Any, least: int, most: int) -> str:
    require(type(value) is str and least <= len(value.encode()) <= most, 5, "text")
    return str(value)


def pair(value: Any, bits: int) -> tuple[int, int]:
    before, after = members(value, 2)
    return unsigned(before, bits), unsigned(after, bits)


def read_receipt(body: bytes) -> dict[str, Any]:
    """Step 5 of receipt.md: the payload, in the form of its section 2."""
    given = uncbor(body)
    require(type(given) is dict and all(type(key) is int for key in given), 5, "payload")
    least = {1, 2, 3, 4, 6, 7, 8, 10, 11}
    require(least <= set(given) <= least | {5, 9, 12, 13}, 5, "members")
    require(unsigned(given[1], 64) == 1, 5, "format")
    outcome = OUTCOMES.get(unsigned(given[4], 64), "")
    require(bool(outcome), 5, "outcome")
    require((5 in given) == (outcome != "confirmed"), 5, "reason")
    consent = None
    if 13 in given:
        by, when = members(given[13], 2)
        consent = [text(by, 0, 64), None if when is None else unsigned(when, 64)]
    before, after = pair(given[7], 32)
    require(before <= after, 5, "counter falls")
    sequence, previous = unsigned(given[10], 64), octets(given[11], 32, 32)
    require((sequence == 0) == (previous == bytes(32)), 5, "sequence")
    return {
        "product": octets(given[2], 32, 32),
        "release": unsigned(given[3], 32),
        "outcome": outcome,
        "reason": text(given[5], 1, 128) if 5 in given else "",
        "versions": pair(given[6], 64),
        "counters": (before, after),
        "height": unsigned(given[8], 64),
        "time": unsigned(given[9], 64) if 9 in given else None,
        "sequence": sequence,
        "previous": previous,
        "node": octets(given[12], 1, 32) if 12 in given else None,
        "consent": consent,
    }


def verify_receipt(data: bytes, device_key: bytes) -> dict[str, Any]:
    """The steps of receipt.md, section 4, for the raw Ed25519 key of a device."""
    with at(1):
        require(len(data) <= 1024, 1, "too long")
        receipt = uncbor(data, 18)
        require(isinstance(receipt, cbor2.CBORTag) and receipt.tag == 18, 1, "tag")
        protected, unprotected, body, signature = members(receipt.value, 4)
        require(type(body) is bytes, 1, "payload")
    with at(2):
        require(unprotected == {} and type(unprotected) is dict, 2, "unprotected header")
        named = uncbor(octets(protected, 0, 64))
        require(type(named) is dict and set(named) == {1, 4} and named[1] == -19, 2, "header")
    require(named[4] == sha256(device_key), 3, "device")
    with at(4):
        key = edwards_key(device_key)
        message = cbor(["Signature1", protected, b"", body])
        octets(signature, 64, 64)
        require(is_signature(ED25519_KEY, key, signature, message), 4, "signature")
    with at(5):
        return read_receipt(body)


def log_leaf(receipt: bytes) -> bytes:
    return sha256(b"\0" + receipt)


def leads_to(root: bytes, leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bool:
    """RFC 9162, 2.1.3.2."""
    if index >= size:
        return False
    fn, sn, found = index, size - 1, leaf
    for node in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            found = sha256(b"\1" + node + found)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = sha256(b"\1" + found + node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and found == root


def verify_acknowledgement(
    data: bytes, receipt: bytes, release: int, trust: Mapping[str, Any]
) -> dict[str, Any]:
    """Whether the ledger's log holds a receipt about a release."""
    require(len(data) <= ACK_MAX, 0, "acknowledgement too large")
    number, index, size, path, fresh = members(uncbor(data), 5)
    require(unsigned(number, 64) == 1 and type(path) is list, 0, "acknowledgement")
    require(len(path) <= PATH_MAX, 0, "path too long")
    unsigned(index, 64), unsigned(size, 64)
    nodes = [octets(node, 32, 32) for node in path]
    ledger = verify_fresh(octets(fresh, 0, len(data)), trust)
    spoken_of = ledger["release"]
    require(spoken_of is not None and spoken_of["id"] == release, 10, "another release")
    state = spoken_of["state"]
    require(state_members(state["word"])["logSize"] == size, 10, "size of the log")
    require(leads_to(state["logRoot"], log_leaf(receipt), index, size, nodes), 10, "path")
    return ledger
