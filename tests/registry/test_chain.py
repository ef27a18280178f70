"""The chain over JSON-RPC, against the embedded ledger and the real contract."""

from __future__ import annotations

import pytest

from protocol.errors import LedgerRefused
from protocol.records import Product
from registry.ports import Call
from tests.registry.scene import SALT, Scene, governance, terms


def test_a_call_is_sent_mined_and_read_back_as_records(scene: Scene) -> None:
    wanted = governance()
    receipt = scene.act(scene.fee, "createProduct", SALT, wanted)

    assert receipt.succeeded
    (event,) = scene.chain.events(receipt.block_hash)
    assert event == receipt.events[0]
    assert event.name == "ProductCreated"
    assert event.args["product_id"] == scene.product
    assert event.args["creator"] == scene.fee.address
    assert event.args["product"] == Product(wanted)
    slot = scene.chain.read(Call("productSlot", (scene.product,)))[0]
    now = scene.chain.head().timestamp
    assert slot == scene.ledger.product_slot(scene.product, Product(wanted), now)


def test_a_refusal_says_why_and_what_to_do(scene: Scene) -> None:
    scene.act(scene.fee, "createProduct", SALT, governance())
    wanted = terms(scene.product)
    with pytest.raises(LedgerRefused) as refused:
        short = scene.agreed(wanted, "alice")
        scene.act(scene.fee, "publish", Product(governance()), wanted, short)
    assert refused.value.reason == "too-few-approvals"
    assert refused.value.data == {"error": "TooFewApprovals", "given": 1, "threshold": 2}
    assert "1 approvals and needs 2" in refused.value.why
