"""The JSON-RPC façade: requests in, responses out, without HTTP.

Guarantees: `handle` never raises; every request with an id gets a JSON-RPC 2.0 response, which is
valid JSON; a batch is bounded, in number and in gas; error codes and messages are those that
Ethereum clients look for (3 with revert data, "already known", "nonce too low", …).

Not done here: what the methods do (see `methods`); who may ask, and how often (the HTTP side).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from protocol.errors import FirmledgerError, LocalFault, Malformed
from registry.embedded import views
from registry.embedded.calls import Meter
from registry.embedded.methods import Methods

if TYPE_CHECKING:
    from registry.embedded.ledger import EmbeddedLedger

MAX_BATCH = 100
REVERTED = "execution-reverted"
_PHRASES = {
    "nonce-too-low": "nonce too low",
    "nonce-too-high": "nonce too high",
    "replacement-underpriced": "replacement transaction underpriced",
    "insufficient-funds": "insufficient funds for gas * price + value",
    "intrinsic-gas": "intrinsic gas too low",
    "exceeds-block-gas": "exceeds block gas limit",
    "exceeds-free-gas": "gas limit too high",
    "tip-above-fee": "max priority fee per gas higher than max fee per gas",
    "pool-full": "txpool is full",
    "wrong-chain": "invalid sender",
    "too-many-logs": "query returned more than 10000 results",
    "unknown-block": "header not found",
}

log = logging.getLogger(__name__)


def handle(ledger: EmbeddedLedger, request: object, meter: Meter) -> Any:
    """One request or a batch; None for a notification, which gets no answer."""
    rpc = _Rpc(Methods(ledger, meter).by_name)
    if isinstance(request, list):
        if not 0 < len(request) <= MAX_BATCH:
            return _failure(None, -32600, f"a batch has 1 to {MAX_BATCH} requests")
        answers = [answer for item in request if (answer := rpc.answer(item)) is not None]
        return answers or None
    return rpc.answer(request)


class _Rpc:
    """The methods for one request, by name."""

    def __init__(self, methods: dict[str, Callable[[object], Any]]) -> None:
        self._methods = methods

    def answer(self, request: object) -> dict[str, Any] | None:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failure(None, -32600, "not a JSON-RPC 2.0 request")
        call_id, name = request.get("id"), request["method"]
        if not _is_id(call_id):
            return _failure(None, -32600, "an id is a string, a finite number or null")
        method = self._methods.get(name)
        if method is None:
            answer = _failure(call_id, -32601, f"the method {name[:80]} does not exist here")
        else:
            answer = self._run(call_id, method, request.get("params"))
        return answer if "id" in request else None

    def _run(self, call_id: object, method: Callable[[object], Any], params: object) -> Any:
        try:
            return {"jsonrpc": "2.0", "id": call_id, "result": method(params)}
        except FirmledgerError as refusal:
            return _refusal(call_id, refusal)
        except Exception:  # our bug: the log has it; the caller learns that it was not theirs
            log.exception("request failed")
            return _failure(call_id, -32603, "internal error")


def _is_id(given: object) -> bool:
    """Whether it is an id of JSON-RPC, and JSON when it goes back."""
    if isinstance(given, float):
        return math.isfinite(given)
    return given is None or (isinstance(given, str | int) and not isinstance(given, bool))


def _refusal(call_id: object, refusal: FirmledgerError) -> dict[str, Any]:
    """Maps our families to JSON-RPC codes; the text is what clients match on."""
    if refusal.reason == REVERTED:
        return _failure(call_id, 3, "execution reverted", views.data(refusal.data["output"]))
    if refusal.reason == "already-known":
        return _failure(call_id, -32000, "already known")
    if refusal.reason == "too-many-logs":
        code = -32005
    elif isinstance(refusal, LocalFault):
        code = -32603
    else:
        code = -32602 if isinstance(refusal, Malformed) else -32000
    phrase = _PHRASES.get(refusal.reason, refusal.reason.replace("-", " "))
    return _failure(call_id, code, f"{phrase}: {refusal.why}")


def _failure(call_id: object, code: int, message: str, data: object = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": call_id, "error": error}
