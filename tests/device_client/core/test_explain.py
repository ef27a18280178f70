"""Every step stands in the explanation once, under the number and name of the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device_client.core.explain import NAMES, NOT_NEEDED, NOT_REACHED, OK, REFUSED, explain
from device_client.core.trust import Step
from protocol.bundle import STEPS
from protocol.errors import Unreachable, Untrusted
from protocol.ledger import Reason

SPEC = Path(__file__).resolve().parents[3] / "docs" / "spec"


def verdicts(rows: list[dict[str, str]]) -> list[str]:
    assert [row["step"] for row in rows] == list(NAMES)
    return [row["verdict"] for row in rows]


def test_the_steps_are_those_of_the_pages() -> None:
    assert set(NAMES) == {*map(str, STEPS), *Step}
    page = (SPEC / "trust.md").read_text()
    assert re.findall(r"^\| (T\d+) \|", page, re.MULTILINE) == list(Step)


def test_a_release_that_may_be_installed_passes_all() -> None:
    assert set(verdicts(explain(rules=Reason.ELIGIBLE))) == {OK}


def test_nothing_for_you_is_proved_by_all_steps_but_those_of_an_offer() -> None:
    rows = explain()
    passed = [row["step"] for row in rows if row["verdict"] == OK]
    assert passed == list(NAMES)[: list(NAMES).index("11")]
    assert {row["verdict"] for row in rows[len(passed) :]} == {NOT_NEEDED}


@pytest.mark.parametrize("number", list(NAMES))
def test_the_step_that_refused_is_the_only_one_and_the_last(number: str) -> None:
    value: object = int(number) if number.isdigit() else number
    rows = explain(error=Untrusted("some-reason", "a", "b", "c", step=value))
    at = list(NAMES).index(number)
    assert verdicts(rows) == [OK] * at + [REFUSED] + [NOT_REACHED] * (len(NAMES) - at - 1)
    assert rows[at]["reason"] == "some-reason"


def test_the_ledgers_refusal_is_told_by_its_name() -> None:
    rows = explain(rules=Reason.COHORT_WAITS)
    assert verdicts(rows)[:-1] == [OK] * (len(NAMES) - 1)
    assert (rows[-1]["verdict"], rows[-1]["reason"]) == (REFUSED, Reason.COHORT_WAITS.slug)


def test_where_nothing_answered_no_step_was_reached() -> None:
    assert set(verdicts(explain(error=Unreachable("down", "a", "b", "c")))) == {NOT_REACHED}


def test_a_contradiction_beside_a_failed_proof_shows_both() -> None:
    error = Untrusted("equivocation", "a", "b", "c", step="T6", beside=7)
    told = {row["step"]: row["verdict"] for row in explain(error=error)}
    steps = list(NAMES)
    assert {told[step] for step in steps[: steps.index("7")]} == {OK}
    assert told["7"] == told["T6"] == REFUSED
    rest = [step for step in steps[steps.index("7") + 1 :] if step != "T6"]
    assert {told[step] for step in rest} == {NOT_REACHED}
