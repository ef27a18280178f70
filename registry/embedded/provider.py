"""web3.py in the same process: a provider that hands requests to an `EmbeddedLedger` directly.

What goes through is what would go over HTTP, byte for byte: requests and responses pass through
web3's own JSON, so nothing works here that fails on the wire.
"""

from __future__ import annotations

import json
from typing import Any, cast

from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from registry.embedded.ledger import EmbeddedLedger


class InProcessProvider(JSONBaseProvider):
    """For ``Web3(InProcessProvider(ledger))``; as safe for threads as the ledger."""

    def __init__(self, ledger: EmbeddedLedger) -> None:
        super().__init__()
        self._ledger = ledger

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """One request, one response."""
        return cast(RPCResponse, self._exchange(self.encode_rpc_request(method, params)))

    def make_batch_request(
        self, batch_requests: list[tuple[RPCEndpoint, Any]]
    ) -> list[RPCResponse] | RPCResponse:
        """Several requests at once, answers in the same order."""
        return cast(
            list[RPCResponse], self._exchange(self.encode_batch_rpc_request(batch_requests))
        )

    def _exchange(self, request: bytes) -> Any:
        answer = self._ledger.handle(json.loads(request))
        return json.loads(json.dumps(answer))
