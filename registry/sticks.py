"""Stick files (``.flb``): a bundle and its payload in one file, for devices without a network.

Guarantees: `verify` needs nothing but the file and a trust file, and takes the same steps as a
device; its last ones bind the payload. What it says is numbered as docs/spec/bundle.md numbers it.
`write` and `refresh` leave a whole file or the old one.

Not here: whether a device may install it now: halts, rollout, hardware and the device's own policy
are judged there. The status that was proved is reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from protocol.bundle import (
    MAX_BUNDLE_BYTES,
    STEPS,
    STICK_PREFIX_BYTES,
    Anchor,
    Bundle,
    Offer,
    Step,
    View,
    offer,
    prove,
    read_stick_prefix,
    stick_prefix,
)
from protocol.errors import FirmledgerError, LocalFault, Malformed, Misuse, Untrusted
from protocol.ids import Version
from protocol.ledger import StateWord, Status
from protocol.trustfile import TrustFile
from registry.files import whole_file

CHUNK = 1 << 20
READ, PAYLOAD, HEIGHT = 0, 16, 17
NAMES = {
    READ: "the file is a bundle and a payload",
    **STEPS,
    PAYLOAD: "the payload is the one the manifest names",
    HEIGHT: "the proof is not below the trust file's height",
}

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the steps said; ``error`` is the refusal of ``failed``, the number of a step."""

    view: View | None = None
    offer: Offer | None = None
    error: FirmledgerError | None = None
    failed: int | None = None
    payload_bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every step passed."""
        return self.error is None

    def steps(self) -> list[dict[str, Any]]:
        """The steps up to the one that failed, each with its verdict."""
        last = max(NAMES) if self.failed is None else self.failed
        return [
            {"step": number, "name": name, "ok": number != self.failed}
            for number, name in NAMES.items()
            if number <= last
        ]


def write(path: Path, bundle: bytes, payload: Iterable[bytes]) -> int:
    """Writes a stick file; its size in bytes. What ``payload`` raises leaves nothing behind."""
    with whole_file(path) as file:
        file.write(stick_prefix(bundle))
        file.write(bundle)
        for piece in payload:
            file.write(piece)
        return file.tell()


def open_stick(path: Path) -> tuple[Bundle, IO[bytes]]:
    """The bundle of a stick file, decoded, unproved, and the file at the start of its payload."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise Misuse(
            "no-such-file",
            f"{path} not opened",
            "it is not there",
            "make one with `firmledger bundle export`",
        ) from None
    except OSError as fault:
        raise _unreadable(path, fault) from fault
    try:
        length = read_stick_prefix(file.read(STICK_PREFIX_BYTES))
        data = file.read(length)
        if len(data) < length or length > MAX_BUNDLE_BYTES:
            raise Malformed(
                "truncated",
                f"{path} refused",
                f"it ends inside its bundle, after {len(data)} of {length} bytes",
                "copy it again, whole",
            )
        return Bundle.decode(data), file
    except OSError as fault:
        file.close()
        raise _unreadable(path, fault) from fault
    except BaseException:
        file.close()
        raise


def verify(path: Path, trust: TrustFile, progress: Progress) -> Verdict:
    """Takes every step on a stick file; never raises for what is wrong with the file."""
    try:
        bundle, file = open_stick(path)
    except (Malformed, Untrusted) as error:
        return Verdict(error=error, failed=READ)
    with file:
        return _verify(bundle, file, trust, progress)


def refresh(path: Path, bundle: bytes) -> int:
    """Puts a newer bundle of the same release before the same payload."""
    old, file = open_stick(path)
    new = Bundle.decode(bundle)
    with file:
        if new.static != old.static:
            raise Misuse(
                "another-release",
                f"{path} not refreshed",
                "the newer bundle speaks of another release",
                "export that release instead",
            )
        return write(path, bundle, _pieces(file, lambda _done: None))


def release_of(bundle: Bundle) -> tuple[bytes, int]:
    """(product id, release id) that a bundle claims to be about; proves nothing."""
    release = bundle.fresh.release
    if bundle.static is None or release is None:
        raise Malformed(
            "no-release",
            "file refused",
            "its bundle brings no release",
            "make one with `firmledger bundle export`",
        )
    return bytes(bundle.static.terms.product_id), release.release_id


def describe(verdict: Verdict, trust: TrustFile, now: int) -> dict[str, Any]:
    """What was proved, for ``--json``; ``now`` in Unix seconds."""
    view, found = verdict.view, verdict.offer
    document: dict[str, Any] = {"ok": verdict.ok, "steps": verdict.steps()}
    if verdict.error is not None:
        document["error"] = verdict.error.as_dict()
    if view is not None:
        age = now - view.timestamp
        document["proof"] = {
            "height": view.number,
            "timestamp": view.timestamp,
            "age": age,
            "fresh": age <= trust.max_age,
            "seals": len(view.sealers),
            "validators": len(trust.validators),
            **verdict.sizes,
        }
    if found is not None and view is not None and view.release is not None:
        status = Status(StateWord.unpack(view.release.state.word).status)
        document["release"] = {
            "product": trust.product_name,
            "release_id": found.release_id,
            "version": str(Version(found.terms.version)),
            "status": status.name.lower(),
            "image_digest": "0x" + found.terms.image_digest.hex(),
            "manifest_digest": "0x" + found.terms.manifest_digest.hex(),
            "signed_by": str(found.key_id),
            "payload_bytes": verdict.payload_bytes,
        }
    return document


def _verify(bundle: Bundle, file: IO[bytes], trust: TrustFile, progress: Progress) -> Verdict:
    anchor: Anchor = trust.anchor
    proof = bundle.fresh.proof
    sizes = {"bytes": proof.size, "bundle_bytes": len(bundle.encode())}
    view: View | None = None
    try:
        view = prove(bundle.fresh, anchor)
        if bundle.static is None:
            raise Malformed(
                "no-release",
                "file refused",
                "its bundle brings no release",
                "make one with `firmledger bundle export`",
                step=int(Step.TERMS),
            )
        found = offer(bundle.static, view)
        size = _check_payload(file, found, progress)
        _check_height(view, trust)
    except FirmledgerError as error:
        step = error.data.get("step", READ)
        return Verdict(view, None, error, int(step), sizes=sizes)
    return Verdict(view, found, payload_bytes=size, sizes=sizes)


def _check_payload(file: IO[bytes], found: Offer, progress: Progress) -> int:
    wanted, running, size = found.manifest.payload_size, hashlib.sha256(), 0
    for piece in _pieces(file, progress):
        size += len(piece)
        if size > wanted:
            break
        running.update(piece)
    if size != wanted:
        more = "more than" if size > wanted else f"{size} of"
        raise Untrusted(
            "payload-size",
            "payload refused",
            f"it has {more} {wanted} bytes",
            "copy the file again, whole",
            step=PAYLOAD,
        )
    if running.digest() != found.manifest.payload_digest:
        raise Untrusted(
            "payload-digest",
            "payload refused",
            "it is not the one that the manifest names",
            "copy the file again; if that does not help, it was changed",
            step=PAYLOAD,
        )
    return size


def _check_height(view: View, trust: TrustFile) -> None:
    if view.number < trust.min_height:
        raise Untrusted(
            "below-trusted-height",
            "bundle refused",
            f"its proof is of block {view.number}, the trust file starts at {trust.min_height}",
            "take it to a registry and run `firmledger bundle refresh`",
            step=HEIGHT,
        )


def _pieces(file: IO[bytes], progress: Progress) -> Iterator[bytes]:
    done = 0
    while piece := file.read(CHUNK):
        done += len(piece)
        progress(done)
        yield piece


def _unreadable(path: Path, fault: OSError) -> LocalFault:
    return LocalFault("file-unreadable", f"{path} not read", str(fault), "check the file")
