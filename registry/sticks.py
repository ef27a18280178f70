"""Stick files (``.flb``): a bundle and its payload in one file, for devices without a network.

Guarantees: `verify` needs nothing but the file and a trust file, and takes the steps a device would
that has its clock set and has seen no block yet, under their numbers in docs/spec/trust.md and
docs/spec/bundle.md; the last one binds the payload.
`write` and `refresh` leave a whole file or the old one.

Not here: whether a device may install it now: halts, rollout, hardware and the device's own policy
are judged there. The status that was proved is reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from protocol import cose, manifest
from protocol.bundle import (
    MAX_BUNDLE_BYTES,
    STEPS,
    STICK_PREFIX_BYTES,
    Bundle,
    Offer,
    Static,
    Step,
    View,
    offer,
    prove,
    read_stick_prefix,
    stick_prefix,
)
from protocol.errors import FirmledgerError, LocalFault, Malformed, Misuse, Untrusted
from protocol.header import parse_header
from protocol.ids import Version
from protocol.ledger import StateWord, Status
from protocol.links import Followed, follow, require_one_block
from protocol.manifest import Manifest
from protocol.trustfile import FUTURE_TOLERANCE, TrustFile
from registry.files import whole_file

CHUNK = 1 << 20
READ, LINKS, HEIGHT, ONE_BLOCK, FUTURE, PAYLOAD = "T1", "T4", "T5", "T6", "T8", "payload"
NAMES: dict[str, str] = {
    READ: "the file is a bundle and a payload",
    LINKS: "links lead from the trusted validators to those of the block",
    **{str(number): name for number, name in STEPS.items() if number < Step.TERMS},
    HEIGHT: "the block is not below the trust file's height",
    ONE_BLOCK: "no link shows another block of its height",
    FUTURE: "the block is not of the future",
    **{str(number): name for number, name in STEPS.items() if number >= Step.TERMS},
    PAYLOAD: "the payload is the one the manifest names",
}

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the steps said; ``error`` is the refusal of the step ``failed``."""

    view: View | None = None
    offer: Offer | None = None
    error: FirmledgerError | None = None
    failed: str | None = None
    payload_bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every step passed."""
        return self.error is None

    def steps(self) -> list[dict[str, Any]]:
        """The steps up to the one that failed, each with its verdict."""
        taken = list(NAMES)
        if self.failed is not None:
            taken = taken[: taken.index(self.failed) + 1]
        return [{"step": s, "name": NAMES[s], "ok": s != self.failed} for s in taken]


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


def verify(path: Path, trust: TrustFile, now: int, progress: Progress) -> Verdict:
    """Takes every step on a stick file; never raises for what is wrong with the file.

    ``now``: Unix seconds, by a clock that is set.
    """
    try:
        bundle, file = open_stick(path)
    except (Malformed, Untrusted) as error:
        return Verdict(error=error, failed=READ)
    with file:
        return _verify(bundle, file, trust, now, progress)


def require_product(bundle: Bundle, trust: TrustFile) -> None:
    """`Untrusted` ``wrong-product`` unless the bundle claims to be of the trust file's product.

    Said before anything is proved: a stick of another product proves nothing of this one.
    """
    claimed = None if bundle.static is None else bytes(bundle.static.terms.product_id)
    if claimed is not None and claimed != bytes(trust.product_id):
        raise Untrusted(
            "wrong-product",
            "bundle refused",
            f"it is of product 0x{claimed.hex()}, the trust file of {trust.product_name}"
            f" ({trust.product_id})",
            "take the stick, or the trust file, of the product meant",
        )


def refresh(path: Path, bundle: bytes) -> int:
    """Puts a newer bundle of the same release before the same payload.

    A payload that is not the manifest's is refused: no new proof makes that stick whole.
    """
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
        start = file.tell()
        _check_bytes(file, _claimed(_static(old)), lambda _done: None)
        file.seek(start)
        return write(path, bundle, _pieces(file, lambda _done: None))


def release_of(bundle: Bundle) -> tuple[bytes, int]:
    """(product id, release id) that a bundle claims to be about; proves nothing."""
    static, release = _static(bundle), bundle.fresh.release
    if release is None:
        raise Malformed(
            "no-release",
            "file refused",
            "its bundle speaks of no release",
            "make one with `firmledger bundle export`",
        )
    return bytes(static.terms.product_id), release.release_id


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


def _verify(
    bundle: Bundle, file: IO[bytes], trust: TrustFile, now: int, progress: Progress
) -> Verdict:
    sizes = {"bytes": bundle.fresh.proof.size, "bundle_bytes": len(bundle.encode())}
    try:
        require_product(bundle, trust)
    except FirmledgerError as error:
        return Verdict(error=error, failed=READ, sizes=sizes)
    try:
        followed = follow(bundle.fresh.links, trust.validators, trust.min_height)
        anchor = replace(trust.anchor, validators=followed.validators)
    except FirmledgerError as error:
        return Verdict(error=error, failed=LINKS, sizes=sizes)
    view: View | None = None
    step = "1"
    try:
        view = prove(bundle.fresh, anchor)
        step = HEIGHT
        _check_height(view, trust, followed)
        step = ONE_BLOCK
        require_one_block(followed.compared, view.header)
        step = FUTURE
        _check_time(view, now)
        step = str(int(Step.TERMS))
        found = offer(_static(bundle), view)
        step = PAYLOAD
        size = _check_bytes(file, found.manifest, progress)
    except FirmledgerError as error:
        return Verdict(view, None, error, str(error.data.get("step", step)), sizes=sizes)
    return Verdict(view, found, payload_bytes=size, sizes=sizes)


def _static(bundle: Bundle) -> Static:
    if bundle.static is None:
        raise Malformed(
            "no-release",
            "file refused",
            "its bundle brings no release",
            "make one with `firmledger bundle export`",
        )
    return bundle.static


def _claimed(static: Static) -> Manifest:
    """The manifest, signed by the signer it comes with, whoever that is."""
    public = cose.public_key_from_bytes(static.signer)
    return manifest.verify(static.envelope, {public.id: public}).manifest


def _check_bytes(file: IO[bytes], claimed: Manifest, progress: Progress) -> int:
    """The payload's size; `Untrusted` if it is not the one that the manifest names."""
    wanted, running, size = claimed.payload_size, hashlib.sha256(), 0
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
        )
    if running.digest() != claimed.payload_digest:
        raise Untrusted(
            "payload-digest",
            "payload refused",
            "it is not the one that the manifest names",
            "copy the file again; if that does not help, it was changed",
        )
    return size


def _check_height(view: View, trust: TrustFile, followed: Followed) -> None:
    """T5: neither below the trust file's height nor below a link's."""
    least = trust.min_height
    if followed.compared:
        least = max(least, parse_header(followed.compared).number)
    if view.number < least:
        raise Untrusted(
            "below-trusted-height",
            "bundle refused",
            f"its proof is of block {view.number}, trust starts at {least}",
            "take it to a registry and run `firmledger bundle refresh`",
        )


def _check_time(view: View, now: int) -> None:
    """T8: on a device such a proof would never grow old."""
    if view.timestamp > now + FUTURE_TOLERANCE:
        raise Untrusted(
            "from-the-future",
            "bundle refused",
            f"its block is stamped {view.timestamp - now} s after this machine's clock",
            "set the clock if it is wrong; otherwise ask who seals such blocks",
        )


def _pieces(file: IO[bytes], progress: Progress) -> Iterator[bytes]:
    done = 0
    while piece := file.read(CHUNK):
        done += len(piece)
        progress(done)
        yield piece


def _unreadable(path: Path, fault: OSError) -> LocalFault:
    return LocalFault(
        "file-unreadable", f"{path} not read", fault.strerror or str(fault), "check the file"
    )
