"""What may be a name, of products and keys: it becomes a word on command lines, a path, a file."""

from __future__ import annotations

import re

from protocol.errors import Misuse

NAME = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_NAME = re.compile(NAME, re.ASCII)


def check_name(name: str, noun: str) -> str:
    """``name``, or `Misuse` ``bad-name`` saying which ``noun`` it was to be the name of."""
    if not _NAME.fullmatch(name):
        raise Misuse(
            "bad-name",
            f"{noun} {name[:80]!r} refused",
            "a name has 1 to 64 of a-z, 0-9, dot, dash and underscore, with a letter or digit "
            "at both ends",
            "choose another name",
        )
    return name
