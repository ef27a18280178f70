"""A device tells the registry up to which height it needs no validator links."""

from __future__ import annotations

from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from device_client.adapters.http_source import HttpSource
from device_client.ports import Question
from protocol.bundle import MAX_BUNDLE_BYTES
from tests.device_client.http_registry import serving
from tests.device_client.registry import Registry, image_of, make
from tests.device_client.test_agent import released
from tests.device_client.test_http_source import QUESTION


def test_the_height_asked_with_is_the_one_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    top, asked = released(), list[Question]()
    answer = Registry.poll

    def noted(self: Registry, question: Question, maximum: int) -> bytes:
        asked.append(question)
        return answer(self, question, maximum)

    monkeypatch.setattr(Registry, "poll", noted)
    agent = top.agent()
    before = agent.trust.height
    agent.update()
    assert asked[0].height == before
    seen = agent.trust.height
    assert seen > before
    top.agent().update()
    assert asked[-1].height == seen


def test_it_is_sent_and_no_part_of_what_is_kept(chain_at_work: Registry) -> None:
    paths: list[str] = []

    def note(handler: BaseHTTPRequestHandler) -> bool:
        paths.append(handler.path)
        return False

    with serving(chain_at_work, note) as address:
        source = HttpSource([address])
        first = source.poll(replace(QUESTION, height=5), MAX_BUNDLE_BYTES)
        # The second answer is a 304, as the height is not what an ETag names.
        assert source.poll(replace(QUESTION, height=9), MAX_BUNDLE_BYTES) == first
    assert [parse_qs(urlsplit(path).query)["height"] for path in paths] == [["5"], ["9"]]


@pytest.fixture
def chain_at_work() -> Registry:
    top = released()
    top.registry.chain.publish(make(image_of("1.1.0"), "1.1.0", 5))
    return top.registry
