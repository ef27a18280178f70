"""Size, time and memory of proofs, on tries as large as a busy ledger's, built directly.

A ledger of n releases stores a word per release and one per image digest besides the product's.
Filler words and accounts have random-looking places, as real ones do. Beside the verification of a
bundle, in the same run: a bare check of the SUIT signature, and python-tuf's of the metadata of a
repository with ten targets, where package ``tuf`` is installed.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from device_client.core.trust import TrustState, advance
from protocol import bundle, cose, manifest
from protocol.bundle import Bundle
from protocol.digests import keccak256
from protocol.records import word
from tests.device_client.core.test_trust_cost import with_links
from tests.protocol.published import NOW, Published, publish

ROUNDS = 200
LIMITS = {(10, 20): (2500, 4000), (10_000, 20): (5000, 6500), (10_000, 100_000): (None, None)}
"""Releases and other accounts -> the most bytes of a proof and of a bundle, where there is one."""
MEMORY_LIMIT = 2.0
"""MiB above idle."""


def _ledger_of(releases: int, accounts: int) -> Published:
    filler = tuple((bytes(keccak256(word(n))), n + 1) for n in range(2 * (releases - 1)))
    return replace(publish(), more_words=filler, accounts=accounts)


def _median_ms(*actions: Callable[[], object]) -> list[float]:
    """Medians of the actions, taken in turns."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(ROUNDS):
        for action, taken in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            taken.append(time.perf_counter() - start)
    return [round(statistics.median(taken) * 1000, 3) for taken in times]


def _row(name: str, value: float, unit: str, against: float | None, how: str) -> dict[str, Any]:
    ratio = round(value / against, 3) if against else None
    row = {"name": name, "value": value, "unit": unit, "against": against}
    return {**row, "ratio": ratio, "how": how}


def rows() -> Iterator[dict[str, Any]]:
    """Rows of ``bench/results.json``."""
    story, data = publish(), b""
    for (releases, accounts), (proof_limit, bundle_limit) in LIMITS.items():
        story = _ledger_of(releases, accounts)
        fresh = story.fresh()
        data = Bundle(fresh, story.static).encode()
        words = f"{2 * releases} storage words and the product's"
        how = f"4 validators, 3 seals, {accounts + 1:,} accounts, {words}"
        suffix = f"{releases}" if accounts == 20 else f"{releases}_accounts_{accounts}"
        yield _row(
            *(f"proof.bytes_{suffix}", fresh.proof.size, "bytes", proof_limit),
            f"header, seals, account and two storage proofs; {how}",
        )
        yield _row(
            *(f"bundle.bytes_{suffix}", len(data), "bytes", bundle_limit),
            f"a whole bundle without its payload; {how}",
        )
    yield from _times(story, data)
    yield from _hostile()
    yield from _memory(story, data)


def _times(story: Published, data: bytes) -> Iterator[dict[str, Any]]:
    def verify() -> None:
        verify_bundle(data, story.anchor)

    def signature_only() -> None:
        key = cose.public_key_from_bytes(story.signer)
        manifest.verify(story.envelope, {key.id: key})

    metadata = _tuf()
    verify_ms, bare_ms, *tuf_ms = _median_ms(
        verify, signature_only, *([metadata] if metadata else [])
    )
    where = "at 10,000 releases and 100,001 accounts"
    yield _row(
        *("proof.verify_ms", verify_ms, "ms", 5.0),
        f"all 15 steps of a bundle {where}, median of {ROUNDS}",
    )
    yield _row(
        *("proof.verify_over_suit", verify_ms, "ms", bare_ms),
        "the same beside a bare verification of the SUIT envelope, in turns",
    )
    for peer_ms in tuf_ms:
        yield _row(
            *("proof.verify_over_tuf", verify_ms, "ms", peer_ms),
            "the same beside python-tuf: timestamp, snapshot and targets (10 targets, 2 of 3 keys,"
            " Ed25519) parsed, verified by a loaded root, hashes and expiry checked, in turns",
        )


def _hostile() -> Iterator[dict[str, Any]]:
    """The most that an answer can cost which was made without any trusted key."""
    anchor, answers = publish().anchor, {"16 of 31": (16, 31), "8 of 64": (8, 64)}
    state = TrustState(100, NOW, b"", anchor.validators)
    costs = {}
    for name, (links, seals) in answers.items():
        data = with_links(links, seals)

        def judge(data: bytes = data) -> None:
            advance(state, Bundle.decode(data).fresh, anchor, clock=None)

        (costs[name],) = _median_ms(judge)
    worst = max(costs, key=lambda name: costs[name])
    yield _row(
        *("proof.hostile_ms", costs[worst], "ms", None),
        "a bundle with as many links as hold without a trusted key, full of opaque items and seals"
        f" ({worst} seals; the bound is 512 in all): time until it is judged, median of {ROUNDS}",
    )


def _memory(story: Published, data: bytes) -> Iterator[dict[str, Any]]:
    """In a process of its own, that has the libraries loaded and has verified nothing yet."""
    if not Path("/proc/self/clear_refs").exists():
        return
    anchor = story.anchor
    parts = [
        *(anchor.ledger.chain_id, anchor.ledger.contract.hex(), anchor.product_id.hex()),
        *(anchor.code_hash.hex(), [one.hex() for one in anchor.validators], data.hex()),
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(parts, file)
        file.flush()
        peaks = []
        for _ in range(5):
            command = [sys.executable, "-c", _MEASURED, file.name]
            done = subprocess.run(command, capture_output=True, check=True, text=True)
            peaks.append(float(done.stdout))
    yield _row(
        *("proof.verify_peak_mib", round(statistics.median(peaks), 3), "MiB", MEMORY_LIMIT),
        "highest resident memory in the first verification of a process, above that of the same"
        " process with everything imported; median of 5 processes",
    )


_MEASURED = """
import json, sys
from pathlib import Path
from bench.proof import verify_bundle
from protocol.bundle import Anchor
from protocol.ids import Address, Hash, ProductId
from protocol.records import Ledger
import coincurve, Crypto.Hash.keccak
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

chain, contract, product, code, listed, data = json.loads(Path(sys.argv[1]).read_text())
anchor = Anchor(
    Ledger(chain, Address(bytes.fromhex(contract))), ProductId(bytes.fromhex(product)),
    Hash(bytes.fromhex(code)), tuple(Address(bytes.fromhex(one)) for one in listed),
)
data = bytes.fromhex(data)

def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024

Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = status("VmRSS")
verify_bundle(data, anchor)
print(max(0.0, status("VmHWM") - before))
"""


def verify_bundle(data: bytes, anchor: bundle.Anchor) -> bundle.Offer:
    """All 15 steps."""
    read = Bundle.decode(data)
    assert read.static is not None
    return bundle.offer(read.static, bundle.prove(read.fresh, anchor))


def _tuf() -> Callable[[], object] | None:
    """A client's refresh against a loaded root, from bytes; None where tuf is not installed."""
    try:
        from securesystemslib.signer import CryptoSigner
        from tuf.api import metadata as tuf
    except ImportError:
        return None
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    keys = [CryptoSigner.generate_ed25519() for _ in range(3)]
    image = b"test vector: firmware"
    targets = tuf.Targets(expires=expires)
    for n in range(10):
        targets.targets[f"fw-{n}.bin"] = tuf.TargetFile.from_data(f"fw-{n}.bin", image)
    snapshot, timestamp = tuf.Snapshot(expires=expires), tuf.Timestamp(expires=expires)
    root = tuf.Root(expires=expires, consistent_snapshot=True)
    for role, signers in (("timestamp", 1), ("snapshot", 1), ("targets", 3), ("root", 3)):
        for key in keys[:signers]:
            root.add_key(key.public_key, role)
    root.roles["targets"].threshold = 2

    def signed(role: Any, signers: int) -> bytes:
        made = tuf.Metadata(role)
        for key in keys[:signers]:
            made.sign(key, append=True)
        return bytes(made.to_bytes())

    targets_raw = signed(targets, 2)
    snapshot.meta["targets.json"] = tuf.MetaFile.from_data(1, targets_raw, ["sha256"])
    snapshot_raw = signed(snapshot, 1)
    timestamp.snapshot_meta = tuf.MetaFile.from_data(1, snapshot_raw, ["sha256"])
    timestamp_raw = signed(timestamp, 1)

    def refresh() -> None:
        now = datetime.datetime.now(datetime.UTC)
        read: dict[str, Any] = {}
        for role, raw in (
            ("timestamp", timestamp_raw),
            ("snapshot", snapshot_raw),
            ("targets", targets_raw),
        ):
            if role == "snapshot":
                read["timestamp"].snapshot_meta.verify_length_and_hashes(raw)
            if role == "targets":
                read["snapshot"].meta["targets.json"].verify_length_and_hashes(raw)
            found = tuf.Metadata.from_bytes(raw)
            root.verify_delegate(role, found.signed_bytes, found.signatures)
            assert not found.signed.is_expired(now)
            read[role] = found.signed
        assert read["targets"].targets["fw-9.bin"].length == len(image)

    refresh()
    return refresh
