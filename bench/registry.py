"""CPU that the registry spends on a poll, beside a bare FastAPI app serving the same bytes.

Both run as processes of their own with the same server, and are asked in turns over one connection
each; every round gives one ratio. A process's CPU is all of it, sealing and following included.

``python -m bench.registry serve`` and ``... bare FILE`` are those processes: they print their
address, and then their CPU time for every line they read.
"""

from __future__ import annotations

import http.client
import io
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

ROUNDS = 15
POLLS = 200
WARM_UP = 100


def rows() -> Iterator[dict[str, Any]]:
    """Rows of ``bench/results.json``."""
    with tempfile.TemporaryDirectory() as folder, _Process("serve", folder) as registry:
        where = urlsplit(registry.address)
        body = registry.ask(where.path + "?" + where.query)
        same = Path(folder) / "body"
        same.write_bytes(body)
        with _Process("bare", str(same)) as bare:
            ours, theirs = _in_turns(registry, bare, where.path)
    quotients = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    ratio, spread = statistics.median(quotients), (min(quotients), max(quotients))
    how = (
        f"{len(body)} bytes with proof and release, keep-alive; {ROUNDS} rounds of {POLLS} polls "
        f"in turns, median; ratios of rounds {spread[0]:.2f} to {spread[1]:.2f}"
    )
    yield {
        "name": "registry.poll_cpu_ratio",
        "value": round(ratio, 2),
        "unit": "x",
        "against": 1,
        "ratio": round(ratio, 2),
        "how": f"CPU of a poll beside a bare FastAPI app with the same bytes; {how}",
    }
    value, against = statistics.median(ours), statistics.median(theirs)
    yield {
        "name": "registry.poll_cpu_us",
        "value": round(value),
        "unit": "µs",
        "against": round(against),
        "ratio": round(value / against, 2),
        "how": f"the same, in CPU time of the server's process; {how}",
    }


def _in_turns(registry: _Process, bare: _Process, path: str) -> tuple[list[float], list[float]]:
    """Microseconds of CPU per poll in each round, of both."""
    for process in (registry, bare):
        process.poll(path, WARM_UP)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(registry.poll(path, POLLS))
        theirs.append(bare.poll(path, POLLS))
    return ours, theirs


class _Process:
    """A server in a process of its own, and one connection to it."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.registry", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._line()
        if not self.address.startswith("http://"):
            raise RuntimeError(f"{' '.join(arguments)} did not start")
        where = urlsplit(self.address)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.communicate()

    def ask(self, path: str) -> bytes:
        """One answer."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}")
        return answer.read()

    def poll(self, path: str, times: int) -> float:
        """Asks as ``times`` devices; microseconds of CPU that each took the server."""
        before = self._cpu()
        for _ in range(times):
            self.ask(f"{path}?{_question(secrets.token_hex(32))}")
        return (self._cpu() - before) / times * 1e6

    def _cpu(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("cpu\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _question(device: str) -> str:
    return f"device=0x{device}&version=0&counter=0&hardware=2"


def _until_the_end(address: str) -> None:
    """Tells the address, and the CPU time for every line that comes in."""
    print(address, flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)


def _serve(folder: str) -> None:
    from demo.stage import Stage
    from demo.story import FIRST, Story
    from demo.view import PlainLog
    from protocol.records import Phase

    with Stage(Path(folder), lambda _unit: None) as stage:
        Story(stage, b"", 1, PlainLog(io.StringIO())).found_product()
        publisher = stage.publisher
        draft = publisher.build(FIRST, bytes(1 << 16), (Phase(10_000, 0),))
        publisher.publish(publisher.approve(draft, ("alice", "bob"), stage.clock.now()))
        stage.registry.follow()
        path = f"/v1/products/{publisher.product}/bundle?{_question(64 * '0')}"
        _until_the_end(f"{stage.url}{path}")


def _bare(file: str) -> None:
    import socket
    import threading

    import uvicorn
    from fastapi import FastAPI, Response

    body, app = Path(file).read_bytes(), FastAPI()

    @app.get("/v1/products/{product}/bundle")
    async def bundle(product: str, device: str, version: int, counter: int, hardware: int) -> Any:
        return Response(body, media_type="application/vnd.firmledger.bundle+cbor")

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    _until_the_end(f"http://127.0.0.1:{listening.getsockname()[1]}")
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    {"serve": _serve, "bare": _bare}[sys.argv[1]](sys.argv[2])
