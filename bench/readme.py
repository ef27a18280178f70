"""The README's table of figures, rendered from ``bench/results.json``: they cannot differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- measured: written by make bench -->\n", "<!-- end of measured -->\n"


def render(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table; what a figure was held against is a limit or a peer."""
    lines = ["| figure | value | held against |", "|---|---:|---:|"]
    for row in rows:
        against = "" if row["against"] is None else f"{row['against']:,}"
        value = f"{row['value']:,} {row['unit']}"
        lines.append(f"| `{row['name']}` | {value} | {against} |")
    return "\n".join(lines) + "\n"


def parts(text: str) -> tuple[str, str, str]:
    """The README before, within and after the table's markers."""
    before, rest = text.split(START)
    within, after = rest.split(END)
    return before, within, after


def write(rows: list[dict[str, Any]]) -> None:
    """Replace the table in the README."""
    before, _, after = parts(README.read_text())
    README.write_text(before + START + render(rows) + END + after)
