"""From frozen back to work: the command line, the table, the journal; and every step explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_client.agent import Agent
from device_client.cli import main
from device_client.core.explain import NAMES, NOT_NEEDED, NOT_REACHED, OK, REFUSED
from protocol.reanchor import Statement
from tests.device_client import registry as world
from tests.device_client.test_cli import Shop
from tests.protocol import recovering, sealed

NEW = sealed.validators(4, start=400)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        made = Shop(tmp_path, stack, capsys)
        made.trust(recovery=recovering.recovery_keys())
        made.init()
        made.release("1.0.0")
        yield made


def statement(shop: Shop, **members: object) -> Path:
    said = Statement(
        product_id=world.PRODUCT,
        sequence=1,
        ledger=world.LEDGER,
        code_hash=sealed.CODE_HASH,
        validators=sealed.addresses(NEW),
        height=shop.chain.number,
        time=shop.chain.time,
    )
    path = shop.folder / "reanchor.bin"
    path.write_bytes(recovering.signed(replace(said, **members)))  # type: ignore[arg-type]
    return path


def show(shop: Shop, **how: Any) -> None:
    """From now on the registry shows blocks made so."""
    shop.chain.fresh = partial(world.Chain.fresh, shop.chain, **how)  # type: ignore[method-assign]


def freeze(shop: Shop) -> None:
    shop.run("check")
    show(shop, extra=1)
    assert shop.run("update", "--yes", code=1)["error"]["reason"] == "equivocation"
    show(shop)
    assert shop.run("status")["ledger"]["frozen"]


def test_a_frozen_device_is_re_anchored_and_updates(shop: Shop) -> None:
    freeze(shop)
    assert shop.run("update", "--yes", code=1)["error"]["reason"] == "frozen"
    answer = shop.run("reanchor", str(statement(shop)))
    assert answer["was_frozen"] and len(answer["evidence"]) == 2
    assert answer["validators"] == [str(one.address) for one in NEW]
    status = shop.run("status")
    assert not status["ledger"]["frozen"] and status["state"] == "idle"
    # The former validators are believed no more; those of the statement are.
    assert shop.run("check", code=1)["error"]["reason"] == "validators-changed"
    show(shop, group=NEW)
    assert shop.run("update", "--yes")["version"] == "1.0.0"
    assert shop.run("reanchor", str(statement(shop)), code=1)["error"]["reason"] == "old-statement"


def test_a_statement_that_does_not_hold_leaves_the_device_frozen(shop: Shop) -> None:
    freeze(shop)
    journal = (shop.folder / "dev/journal.bin").read_bytes()
    path = statement(shop)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert shop.run("reanchor", str(path), code=1)["error"]["data"]["step"] == "R4"
    path.write_bytes(bytes(10_000))
    assert "error" in shop.run("reanchor", str(path), code=1)
    assert (shop.folder / "dev/journal.bin").read_bytes() == journal
    assert shop.run("update", "--yes", code=1)["error"]["reason"] == "frozen"


def test_a_cut_after_the_statement_was_kept_loses_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(shop)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Agent, "start", cut)
    assert main(["-C", str(shop.folder / "dev"), "reanchor", str(statement(shop))]) == 1
    monkeypatch.undo()
    assert shop.capsys.readouterr().err.startswith("error: stopped")
    status = shop.run("status")
    assert (status["state"], status["ledger"]["frozen"]) == ("frozen", False)
    show(shop, group=NEW)
    assert shop.run("update", "--yes")["version"] == "1.0.0"


def test_without_recovery_keys_there_is_nothing_to_re_anchor_by(shop: Shop) -> None:
    shop.trust()
    shop.init("--force")
    error = shop.run("reanchor", str(statement(shop)), code=2)["error"]
    assert error["reason"] == "no-recovery-keys"


def test_every_step_of_a_check_is_explained(shop: Shop) -> None:
    steps = shop.run("check", "--explain")["steps"]
    assert [(s["step"], s["name"]) for s in steps] == list(NAMES.items())
    assert {s["verdict"] for s in steps} == {OK}
    shop.run("update", "--yes")
    steps = {s["step"]: s["verdict"] for s in shop.run("check", "--explain")["steps"]}
    assert steps["T9"] == OK and steps["11"] == NOT_NEEDED
    show(shop, group=NEW)
    document = shop.run("check", "--explain", code=1)
    steps = {s["step"]: s["verdict"] for s in document["steps"]}
    assert document["error"]["reason"] == "validators-changed"
    assert (steps["2"], steps["3"], steps["4"]) == (OK, REFUSED, NOT_REACHED)
    assert "steps" not in shop.run("check", code=1)


def test_the_explanation_is_readable(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-C", str(shop.folder / "dev"), "check", "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES) + 1
    assert lines[0].split() == ["T1", "ok", *NAMES["T1"].split()]
    assert "3  ok       a quorum of the trusted validators sealed it" in lines[6]
