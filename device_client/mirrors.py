"""Who is asked for a payload's bytes, and in which order, by what was seen of each source.

Bytes of several sources in one slot come out wrong if one of them lied, and nobody knows which. So
a mixture that was wrong is not made again: from then on one source *alone* writes, from the first
byte, round after round. If it comes to the end, the bytes are right or it is a liar for certain. If
it keeps breaking off, the next one has its turn, from the first byte; whenever all have had theirs,
turns get twice as long. A source that is slow but honest therefore gets a turn that is long enough,
whatever the others send; and what is fetched in vain until then is bounded by the turns before.

Lasts as long as the process: another one starts by believing everybody.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_client.ports import Source

FIRST_TURN = 2
"""Rounds in which the source that writes alone may break off, at first."""


class Mirrors:
    """What is known of the sources of one device."""

    def __init__(self) -> None:
        self._liars: list[Source] = []
        self._mixed = False
        self._alone: Source | None = None
        self._turns = self._broken = 0

    def order(self, sources: Sequence[Source]) -> list[Source]:
        """In which to ask them: the one that writes alone, then those that never lied."""
        if not any(map(self.alone, sources)):
            self._alone = None
        return sorted(sources, key=lambda one: (not self.alone(one), _among(self._liars, one)))

    def alone(self, source: Source) -> bool:
        """Whether nobody else is to add to what it writes."""
        return source is self._alone

    def begins(self, source: Source) -> None:
        """It is asked next: alone, where a mixture came out wrong and it is nobody's turn."""
        if self._mixed and self._alone is None:
            self._alone, self._broken = source, 0

    def mixed(self, source: Source) -> None:
        """What several sent came out wrong; ``source``, the last of them, starts again, alone."""
        self._mixed, self._alone, self._turns, self._broken = True, source, 0, 0

    def lied(self, source: Source) -> None:
        """It sent another payload from the first byte to the last: asked last from now on."""
        if not _among(self._liars, source):
            self._liars.append(source)
        if self.alone(source):
            self._alone = None

    def broke(self, sources: Sequence[Source]) -> bool:
        """The source that writes alone broke off; whether its turn is over, and the next one is to
        start from the first byte."""
        self._broken += 1
        if self._broken < FIRST_TURN << min(self._turns // len(sources), 16):
            return False
        place = next(at for at, one in enumerate(sources) if self.alone(one))
        self._alone, self._broken = sources[(place + 1) % len(sources)], 0
        self._turns += 1
        return True

    def done(self) -> None:
        """The payload is there, and right."""
        self._mixed, self._alone = False, None


def _among(known: Sequence[Source], source: Source) -> bool:
    return any(one is source for one in known)
