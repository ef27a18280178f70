"""Nesting without end: refused before it is parsed, and no crash where it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Malformed
from registry import cli
from registry.depth import DEEP_LIMIT, MAX_NESTING, Nesting, deeply, read_json, shallow

REPO = Path(__file__).resolve().parents[2]
DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry in a process of its own, so that a crash is the server's alone; its address."""
    folder = tmp_path_factory.mktemp("depth") / "reg"
    assert cli.main(["init", str(folder)]) == 0
    command = [sys.executable, "-m", "registry.cli", "-C", str(folder), "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--json"], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        shown = ""
        while not shown.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, "the server ended"
            shown += line
        yield json.loads(shown)["url"]
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("path", ["/rpc", "/v1/products", "/v1/releases", "/v1/receipts"])
@pytest.mark.parametrize("kind", ["application/json", "application/cose", ""])
@pytest.mark.parametrize("body", [DEEP, b'{"a":' * 100_000, DEEP.decode().encode("utf-16")])
def test_a_stranger_who_nests_without_end_is_refused(
    server: str, path: str, kind: str, body: bytes
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = httpx2.post(server + path, content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    if path != "/v1/receipts":
        assert answer.json()["reason"] == ("not-json" if b"\x00" in body else "too-deep")
    assert httpx2.get(server + "/healthz").json()["ok"]


def test_the_ledger_leaves_the_recursion_limit_as_it_was() -> None:
    """In a process of its own, where nothing else has set it; deep JSON is an exception there."""
    program = (
        "import json, sys, threading; before = sys.getrecursionlimit()\n"
        "import registry.embedded, registry.chain, registry.embedded.provider, registry.signer\n"
        "def parse():\n"
        "    try: json.loads('[' * 100_000)\n"
        "    except RecursionError: print('ended well', sys.getrecursionlimit() == before)\n"
        "thread = threading.Thread(target=parse); thread.start(); thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended well True\n"), done.stderr


def test_deep_work_is_done_and_the_limit_put_back() -> None:
    def down(levels: int) -> int:
        return 0 if levels == 0 else 1 + down(levels - 1)

    before, levels = sys.getrecursionlimit(), DEEP_LIMIT - 100
    assert deeply(lambda: down(levels)) == levels
    assert sys.getrecursionlimit() == before
    with pytest.raises(RecursionError):
        deeply(lambda: down(10 * levels))
    assert sys.getrecursionlimit() == before
    with pytest.raises(RecursionError):
        down(before)


def test_what_is_just_deep_enough_passes() -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        fits = opening * MAX_NESTING + b"1" + closing * MAX_NESTING
        assert shallow(fits) == fits
        with pytest.raises(Malformed) as refusal:
            shallow(opening + fits + closing)
        assert refusal.value.reason == "too-deep"
        with pytest.raises(ValueError, match="nested"):
            read_json(opening + fits + closing)
    assert read_json(b'{"a": [1]}') == {"a": [1]}


@given(st.lists(st.text(), max_size=4), st.integers(0, 80), st.integers(1, 7))
def test_strings_do_not_count_however_it_is_cut(texts: list[str], extra: int, size: int) -> None:
    """Brackets, quotes and backslashes inside strings, cut into pieces anywhere."""
    value: object = [*texts, "[" * extra, '"' * extra, "\\" * extra]
    for _ in range(MAX_NESTING - 1):
        value = [value]
    raw = json.dumps(value).encode()
    for text, fits in ((raw, True), (b"[" + raw + b"]", False)):
        nesting = Nesting()
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        if fits:
            for piece in pieces:
                nesting.take(piece)
        else:
            with pytest.raises(Malformed):
                for piece in pieces:
                    nesting.take(piece)
