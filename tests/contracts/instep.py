"""The model, and the contract on two EVMs, in step: each act is played on all three and compared.

py-evm (which eth-tester sets up) and anvil share no code. After each act, on each of them:

  1. where the model took the act, the logs are what follows from its records, bit for bit, and the
     return value is; where it refused, the error is the same, with the same data;
  2. the gas used is the same on both;
  3. the root of the contract's storage is that of the words that follow from the model's records,
     so no word differs, is missing, or is there besides.

Who uses this imports `node` as well: the fixture that starts anvil, once for a worker of pytest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from tests.contracts import expected
from tests.contracts.anvil import Anvil, running
from tests.contracts.evm import Evm, LedgerBox, Outcome, address
from tests.contracts.model import Model
from tests.contracts.rules import Refused
from tests.contracts.storage import StorageTrie

APPROVERS = ("alice", "bob", "carol", "dave")
OTHERS = ("guard", "auditor", "reporter", "enroller", "outsider", "owner")
NAMES = (*APPROVERS, *OTHERS)


@pytest.fixture(scope="session", autouse=True)
def node() -> Iterator[None]:
    """One anvil for all ledgers; each starts from its genesis."""
    with running(Evm(()).chain_id, NAMES) as InStep.anvil:
        yield


class InStep:
    """A ledger of its own, three times over."""

    anvil: ClassVar[Anvil]

    def __init__(self) -> None:
        super().__init__()
        self.boxes = {
            "py-evm": LedgerBox(*NAMES),
            "anvil": LedgerBox(*NAMES, chain=self.anvil.fresh()),
        }
        self.box = self.boxes["py-evm"]  # for what holds of both
        assert self.box.ledger == self.boxes["anvil"].ledger
        self.model = Model(self.box.ledger)
        self.wait = 1
        self.last_refusal: Refused | None = None
        self._storage = StorageTrie()

    @property
    def now(self) -> int:
        """The time at which the next act will be taken."""
        return self.box.evm.now + self.wait

    def do(self, sender: str, function: str, *args: Any) -> None:
        """One act on all three; compares what came of it."""
        now, self.wait, self.last_refusal = self.now, 1, None
        did = {name: box.act(sender, function, *args, time=now) for name, box in self.boxes.items()}
        snake = re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), function)
        try:
            returned = getattr(self.model, snake)(address(sender), now, *args) or b""
        except Refused as refused:
            self.last_refusal = refused
            for name, outcome in did.items():
                _compare_refusals(f"{function} on {name}", outcome, refused)
        else:
            logs = expected.logs(self.model, address(sender), function, args)
            for name, outcome in did.items():
                where = f"{function} on {name}"
                assert outcome.refusal is None, f"{where}: the model took it: {outcome.refusal}"
                assert outcome.logs == logs, f"{where}: {outcome.logs} for {logs}"
                assert outcome.returned == returned, where
        assert len({outcome.gas for outcome in did.values()}) == 1, f"{function}: gas {did}"

    def compare_words(self) -> None:
        """The contract's storage holds the words of the model's records, and nothing else."""
        words = expected.words(self.model)
        root = self._storage.root(words)
        for name, box in self.boxes.items():
            if box.evm.storage_root(box.contract) != root:
                held = {place: box.evm.storage(box.contract, place) for place in words}
                wrong = {hex(p): held[p].hex() for p in words if held[p] != words[p]}
                raise AssertionError(f"{name}: {wrong or 'a word that the model does not know'}")

    def compare_reads(self, answer: Any, function: str, *args: Any) -> None:
        """A view gives the model's answer, at the time of the next act."""
        for name, box in self.boxes.items():
            assert box.read(function, *args, time=self.now) == answer, f"{function} on {name}"


def _compare_refusals(where: str, outcome: Outcome, refused: Refused) -> None:
    assert outcome.refusal is not None, f"{where}: the model refused it: {refused}"
    assert outcome.refusal.name == refused.name, f"{where}: {outcome} {refused}"
    assert _plain(outcome.refusal.data) == _plain(refused.data), f"{where}: {outcome} {refused}"
    assert not outcome.logs, where


def _plain(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Error data with addresses as bytes, however they were spelled."""
    return tuple(
        bytes.fromhex(v[2:]) if isinstance(v, str) and re.fullmatch("0x[0-9a-fA-F]{40}", v) else v
        for v in (bytes(v) if isinstance(v, bytes) else v for v in data)
    )
