"""A terminal: the command line in this process, and what it said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry import cli


class Said:
    """What one command said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def refused(self, code: int, reason: str) -> Said:
        """Checks a refusal: exit code, document, and the line on stderr."""
        assert self.code == code, self.out + self.err
        assert self.document["error"]["reason"] == reason
        line = next(line for line in self.err.splitlines() if line.startswith("error: "))
        assert line.count(" / ") >= 2
        return self


class Terminal:
    """Runs commands on one registry's directory, as a shell would."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self._capsys = directory, capsys

    def __call__(self, *words: str | Path, patience: float = 5) -> Said:
        """With ``--json``; nothing but one document may reach stdout."""
        said = self.plain(*words, "--json", patience=patience)
        json.loads(said.out)
        return said

    def plain(self, *words: str | Path, patience: float = 5) -> Said:
        self._capsys.readouterr()
        setup = ["-C", str(self.directory), "--patience", str(patience)]
        code = cli.main([*setup, *map(str, words)])
        out, err = self._capsys.readouterr()
        return Said(code, out, err)
