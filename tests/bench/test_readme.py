"""The README states what was measured, and nothing else."""

import json

from bench.__main__ import RESULTS
from bench.readme import README, parts, render


def test_the_readmes_table_is_that_of_the_results() -> None:
    _, within, _ = parts(README.read_text())
    rows = json.loads(RESULTS.read_text())
    assert within == render(rows)
    altered = [{**rows[0], "value": rows[0]["value"] + 1}, *rows[1:]]
    assert within != render(altered)
