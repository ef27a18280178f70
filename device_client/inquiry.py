"""Ask a source, prove its answer, and find out what the ledger lets this device install.

Rules:

1. A proof that holds moves trust, durably, before anything else of the answer is looked at.
2. An answer that does not prove what it claims changes nothing but the history, and is told by a
   receipt where it concerns a release that *was* proved.
3. Where one registry's answer is unreadable, unproved or old, the next one is asked; the first
   one's error counts only if none does better. A contradiction of the ledger is never passed over.
4. The ledger's rules are evaluated at the proven header's time; expiry at the latest time known.

It does *not* consult the owner's policy.
"""

from __future__ import annotations

from dataclasses import dataclass

from device_client.core.clock import BUILD_TIME
from device_client.core.slots import Entry
from device_client.core.trust import Equivocation, Step, advance, age, require_fresh
from device_client.core.types import Target
from device_client.memory import Memory
from device_client.outbox import Outbox
from device_client.ports import Question, Source
from device_client.profile import Parts, Profile
from protocol.bundle import MAX_BUNDLE_BYTES, Bundle, Fresh, Offer, View, offer, require_product
from protocol.errors import (
    FirmledgerError,
    LocalFault,
    Malformed,
    Unreachable,
    Untrusted,
    step,
)
from protocol.ids import Digest
from protocol.ledger import Reason, eligible
from protocol.records import Device

PATIENT = frozenset({Reason.COHORT_WAITS, Reason.NOT_STARTED, Reason.ATTESTATIONS_MISSING})
"""Answers of the ledger that time alone may change: no refusal, and no receipt."""


@dataclass(frozen=True)
class Finding:
    """What one poll proved. ``offer`` is None where nothing was offered.

    ``reason`` is the ledger's word on the offer, ELIGIBLE where there is none.
    """

    view: View
    offer: Offer | None = None
    reason: Reason = Reason.ELIGIBLE

    @property
    def target(self) -> Target | None:
        """What to install, if the ledger lets this device install it now."""
        if self.offer is None or self.reason is not Reason.ELIGIBLE:
            return None
        manifest, terms = self.offer.manifest, self.offer.terms
        return Target(
            release_id=self.offer.release_id,
            version=manifest.version,
            security_counter=manifest.security_counter,
            image_digest=manifest.image_digest,
            image_size=manifest.image_size,
            payload_digest=manifest.payload_digest,
            payload_size=manifest.payload_size,
            manifest_digest=Digest(terms.manifest_digest),
            critical=terms.critical,
        )


class Inquiry:
    """Asks on behalf of one device."""

    def __init__(self, profile: Profile, parts: Parts, memory: Memory, outbox: Outbox) -> None:
        """``outbox`` takes the receipts of refusals."""
        self._profile, self._parts = profile, parts
        self._memory, self._outbox = memory, outbox

    def ask(self, running: Entry, wait: int = 0) -> Finding:
        """What the first good answer proves; trust has moved when this returns, or raises late.

        ``wait``: seconds for which the first source may hold its answer back until it has news.

        `Malformed`, `Untrusted`, `Refused` (frozen, stale, class-key-epoch), `Unreachable`.
        """
        problem: FirmledgerError | None = None
        for source in self._parts.source.each():
            try:
                return self._ask(source, running, 0 if problem else wait)
            except FirmledgerError as error:
                if not _another_may_know(error):
                    problem = error
                    break
                problem = problem or error
        assert problem is not None  # noqa: S101 - a source is at least one
        if not isinstance(problem, Unreachable | LocalFault):
            self._outbox.refused(problem.data.get("release", 0), problem.reason)
        raise problem

    def _ask(self, source: Source, running: Entry, wait: int) -> Finding:
        question = Question(
            product=self._profile.trust.product_id,
            device=self._parts.identity.device_id,
            version=running.version,
            security_counter=self._memory.book.state.counter,
            hardware=self._profile.hardware,
            wait=wait,
            height=self._memory.trust.height,
        )
        answer = source.poll(question, MAX_BUNDLE_BYTES)
        with step(Step.READ):
            bundle = Bundle.decode(answer)
        try:
            return self._prove(bundle, running)
        except (Malformed, Untrusted) as error:
            if not isinstance(error, Equivocation):
                with step(error.data.get("step", Step.READ)):
                    require_product(bundle, question.product)  # the plainer reason, if it is one
            raise

    def prove(self, fresh: Fresh) -> View:
        """Move trust by a proof, durably. A contradiction freezes the device, as durably."""
        memory = self._memory
        try:
            trust, view = advance(
                *(memory.trust, fresh, self._profile.trust.anchor),
                clock=memory.clock(),
                build_time=BUILD_TIME,
                trusting_period=self._profile.trust.trusting_period,
            )
        except Equivocation as error:
            memory.believe(error.state)
            raise
        memory.believe(trust)
        return view

    def age(self, view: View) -> int:
        """Seconds since the proof's block, by the latest time known."""
        memory = self._memory
        return age(view.timestamp, memory.trust, clock=memory.clock(), build_time=BUILD_TIME)

    def fresh_enough(self, view: View) -> bool:
        """Whether the proof is still within max-age."""
        return self.age(view) <= self._profile.trust.max_age

    def _prove(self, bundle: Bundle, running: Entry) -> Finding:
        view, memory = self.prove(bundle.fresh), self._memory
        require_fresh(
            view,
            memory.trust,
            self._profile.trust.max_age,
            clock=memory.clock(),
            build_time=BUILD_TIME,
        )
        if bundle.static is None or view.release is None:
            return Finding(view)
        try:
            found = offer(bundle.static, view)
            with step(Step.CLASS_KEY):
                self._parts.identity.content_key(found.manifest.encryption_info)
        except FirmledgerError as error:
            error.data["release"] = view.release.release_id
            raise
        device = Device(
            self._parts.identity.device_id,
            running.version,
            memory.book.state.counter,
            self._profile.hardware,
        )
        reason = eligible(
            view.product, found.terms, found.release_id, view.release.state, device, view.timestamp
        )
        if reason is Reason.ELIGIBLE and 0 < found.terms.expiry <= memory.now():
            reason = Reason.EXPIRED
        return Finding(view, found, reason)


def _another_may_know(error: FirmledgerError) -> bool:
    """Whether it was the answer that was wrong, not this device, its ledger or the release."""
    if isinstance(error, Equivocation):
        return False
    return isinstance(error, Malformed | Untrusted | Unreachable) or error.reason == "stale"
