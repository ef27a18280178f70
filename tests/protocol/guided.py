"""The parsers once more, with inputs that coverage leads to: a one-off, not part of the tests.

``python -m tests.protocol.guided SECONDS [FOLDER]`` with package ``atheris`` beside ours (it is in
no requirements file: it brings libFuzzer). The first byte of an input picks the parser; half of the
mutations are libFuzzer's, half bend the structure as `tests.world.mutation` does. What may come of
an input is what `tests.protocol.parsers` says; time and memory of one are bounded by libFuzzer, and
counted by the tests. FOLDER keeps the corpus; without it, it is forgotten.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["protocol", "device_client"]):
    from tests.protocol.parsers import PARSERS, answered
    from tests.world.mutation import mutant

SECONDS_EACH, MEGABYTES, LONGEST = 5, 600, 32 * 1024


def judge(data: bytes) -> None:
    """AssertionError, which ends the run and keeps the input, for whatever must not happen."""
    if data:
        answered(PARSERS[data[0] % len(PARSERS)], data[1:])


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Another input, of the same parser for the most part."""
    rng = random.Random(seed)
    if not data or rng.random() < 0.5:
        return bytes(atheris.Mutate(data, max_size))
    seeds = PARSERS[data[0] % len(PARSERS)].seeds
    return (data[:1] + mutant(rng, (data[1:], data[1:], *seeds)))[:max_size]


def main() -> None:
    """Run for so long."""
    seconds, kept = int(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(kept[0] if kept else scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for number, parser in enumerate(PARSERS):
            for at, seed in enumerate(parser.seeds):
                (folder / f"seed-{number}-{at}").write_bytes(bytes([number]) + seed)
        options = [
            *(f"-max_total_time={seconds}", f"-timeout={SECONDS_EACH}", f"-max_len={LONGEST}"),
            *(f"-rss_limit_mb={MEGABYTES}", "-print_final_stats=1", "-verbosity=1"),
        ]
        arguments = [sys.argv[0], str(folder), *options, f"-artifact_prefix={folder}/found-"]
        atheris.Setup(arguments, judge, custom_mutator=mutated)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
