"""Re-anchoring a device: the one way its trust moves without a proof, by its maker's recovery keys.

Guarantees:

* Height and time do not fall by it, nor does the sequence: no statement is accepted twice, and
  none after a later one.
* Statuses seen stay seen as long as the ledger is the same one. The security counter, the images
  and the receipts are not touched.
* The next proof is checked in full against what the statement names. Whatever was frozen is
  believed again only from there on.

It is the answer to three states that nothing else leads out of: frozen, cut off for longer than the
trusting period, and validators that no chain of links leads to.
"""

from __future__ import annotations

from dataclasses import replace

from device_client.core.belief import TrustState
from protocol.errors import Untrusted
from protocol.reanchor import SEQUENCE, verify
from protocol.trustfile import TrustFile


def reanchor(state: TrustState, data: bytes, trust: TrustFile) -> TrustState:
    """The state after the statement in ``data`` (docs/spec/reanchor.md); the caller keeps it.

    `Malformed`, `Untrusted`, or `Misuse` where the trust file names no recovery keys; nothing has
    changed then.
    """
    statement = verify(
        data,
        product_id=trust.product_id,
        keys=trust.recovery_public_keys,
        threshold=trust.recovery_threshold,
    )
    if statement.sequence <= state.sequence:
        raise Untrusted(
            "old-statement",
            "re-anchor statement refused",
            f"its sequence is {statement.sequence}, number {state.sequence} was accepted already",
            "get the newest statement from the maker",
            step=SEQUENCE,
        )
    before = state.anchor(trust.anchor).ledger
    same = statement.ledger == before
    return replace(
        state,
        height=max(state.height, statement.height),
        time=max(state.time, statement.time),
        # The block kept may be one of those that contradict each other: it is no evidence any more.
        header=b"",
        evidence=(),
        validators=statement.validators,
        # Another ledger counts its releases anew.
        newest=state.newest if same else 0,
        statuses=state.statuses if same else (),
        anchored=statement,
    )
