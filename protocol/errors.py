"""Every way in which Firmledger says no, split by whose fault it is.

Rules:

* An error carries three sentences' worth of data: *what* was refused, *why*, and *what to do*;
  and a stable ``reason`` (kebab-case) that scripts, receipts and tests may match on.
* Foreign errors (OSError, cbor2, cryptography, …) are mapped once, where they enter.
* What an error says may have come from the wire. It is one line of printable characters, whatever
  it was made from: no terminal and no log takes an order from it.
* Nothing in here prints or exits: the command lines do that, in one place each.

Families, by fault:

==================  =====================================================================
`Misuse`            my bug or wrong usage: the caller asked for something impossible
`Malformed`         their bytes cannot be read: truncated, oversized, not canonical, foreign
`Untrusted`         their bytes can be read, and do not prove what they claim
`Unreachable`       the wire: nothing answered, or the answer stopped half-way
`LedgerRefused`     the contract said no; carries the custom error's name and data
`Refused`           policy: everything is genuine, and the answer is still no
`LocalFault`        this machine: disk full, slot unwritable, journal damaged
==================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


def printable(text: str) -> str:
    """``text`` on one line: white space becomes a space, any other unprintable a question mark.

    Unprintable are control characters (escape sequences begin with one), those that change the
    direction of writing, line separators, surrogates, and what Unicode has not assigned.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def printable_data(value: Any) -> Any:
    """``value`` with every text in it `printable`; what is no text or container stays as it is."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable_data(key): printable_data(item) for key, item in value.items()}
        case list() | tuple():
            return [printable_data(item) for item in value]
    return value


class FirmledgerError(Exception):
    """Base of all errors. ``exit_code`` is what a command line ends with (2 = wrong usage)."""

    family: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, reason: str, what: str, why: str, fix: str, **data: Any) -> None:
        """``reason``: stable kebab-case id; ``what``/``why``/``fix``: a clause each."""
        self.reason, self.what, self.why, self.fix = map(printable, (reason, what, why, fix))
        super().__init__(f"{self.what} / {self.why} / {self.fix}")
        self.data = data

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON-ready data, for ``--json`` and problem+json."""
        return {
            "family": self.family,
            "reason": self.reason,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            **({"data": printable_data(self.data)} if self.data else {}),
        }


class Misuse(FirmledgerError):
    """The caller asked for something that cannot be; exit code 2."""

    family = "misuse"
    exit_code = 2


class Malformed(FirmledgerError):
    """Bytes that cannot be read as what they claim to be; nothing of them was used."""

    family = "malformed"


class Untrusted(FirmledgerError):
    """Readable bytes that do not prove their claim: signature, seal, digest, proof, commitment."""

    family = "untrusted"


class Unreachable(FirmledgerError):
    """The other side did not answer, or stopped answering; trying again later may help."""

    family = "unreachable"


class LedgerRefused(FirmledgerError):
    """The contract refused; ``data['error']`` is the custom error's name, the rest its data."""

    family = "ledger"


class Refused(FirmledgerError):
    """Genuine in every respect, and policy still says no (window, cohort, version, consent, …)."""

    family = "refused"


class LocalFault(FirmledgerError):
    """This machine could not do it: disk full, slot unwritable, state damaged."""

    family = "local"


@contextmanager
def step(number: int | str) -> Iterator[None]:
    """Marks what is refused inside with the ``number`` that the specification gives the step."""
    try:
        yield
    except FirmledgerError as error:
        error.data["step"] = number
        raise
