"""What an error may say: one printable line, whoever put the words in."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as some

from protocol.errors import FirmledgerError, Refused, Unreachable

ORDERS = [
    "\x1b[2J\x1b[Hall is well",
    "\x1b]0;title\x07",
    "\x9b31m",
    "line\r\nerror: another",
    "a\x00b\x08\x7f",
    "right-to-left \u202e is no order",
    "\u2028\u2029\u200b\ud800",
]


def every_text(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in every_text(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in every_text(item)]
    return [value] if isinstance(value, str) else []


def texts_of(error: FirmledgerError) -> list[str]:
    words = [str(error), error.reason, error.what, error.why, error.fix]
    return words + every_text(error.as_dict())


@pytest.mark.parametrize("order", ORDERS)
def test_no_error_gives_a_terminal_an_order(order: str) -> None:
    error = Unreachable(order, order, order, order, said=order, list=[order, {order: (order,)}])
    assert all(text.isprintable() for text in texts_of(error))


@given(some.text())
def test_whatever_is_said_is_one_printable_line(text: str) -> None:
    error = Refused("reason", f"{text} refused", f"it says {text}", text, said=text)
    error.data["later"] = text
    assert all(said.isprintable() for said in texts_of(error))


def test_what_can_be_printed_is_kept_as_it_is() -> None:
    fine = "{'a': \"1\"} / 100 % — grün, 東京 \N{SNOWMAN}"
    data = {"count": 3, "ok": True, "none": None, "list": [1, fine], "more": {"x": fine}}
    error = Refused("some-reason", fine, fine, fine, **data)
    assert str(error) == f"{fine} / {fine} / {fine}"
    assert error.as_dict()["data"] == data and error.data == data
    assert json.loads(json.dumps(error.as_dict()))["why"] == fine


def test_lines_become_words() -> None:
    assert Refused("r", "a\nb", "c\td", "e\r\nf").args == ("a b / c d / e  f",)


def test_the_text_is_clean_in_a_traceback_too() -> None:
    try:
        raise Refused("r", "a", "\x1b[31m", "b")
    except Refused:
        assert "\x1b" not in repr(sys.exc_info()[1])
