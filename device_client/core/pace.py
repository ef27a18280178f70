"""How fast, and when again: delays between polls, steps of a trial, the rate of a download.

Pure arithmetic: times are arguments, in seconds. Nothing here waits; the agent and the daemon do,
for as long as they are told.
"""

from __future__ import annotations

import hashlib

LEAST_RATE = 4096
"""Bytes per second; a download that is slower than a quarter of it counts as hanging."""
STEP = 60
"""Seconds between two health checks of an image that is settling, at most."""


def fraction(seed: bytes, number: int) -> float:
    """A number in [0, 1), the same for the same arguments and unlike those of other devices."""
    digest = hashlib.sha256(seed + number.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def poll_delay(interval: int, failures: int, seed: bytes, number: int, longest: int) -> float:
    """Seconds until poll ``number``: the interval, doubled per failure in a row, within +-25%.

    Never above ``longest``. ``seed`` is the device id: a fleet spreads by itself.
    """
    base = float(min(interval << min(failures, 16), longest))
    return min(base * (0.75 + fraction(seed, number) / 2), float(longest))


def settling_step(stability: int) -> int:
    """Seconds between two health checks while an image settles: about ten, or one a minute."""
    return max(1, min(STEP, stability // 10))


def settled_for(settled: int, checked: int | None, now: int, stability: int) -> int:
    """Seconds for which the image was found healthy, counting those since the last check.

    ``checked``, ``now``: seconds since the machine booted. Time that nobody watched does not count:
    neither that before the first check, nor that before a reboot, nor more than two steps at once.
    """
    if checked is None or now < checked:
        return settled
    return settled + min(now - checked, 2 * settling_step(stability))


class Bucket:
    """A token bucket: ``rate`` bytes per second on average, at most one second's worth at once."""

    def __init__(self, rate: int, now: float) -> None:
        """Full at the time ``now``."""
        self._rate, self._free, self._then = rate, float(rate), now

    def take(self, count: int, now: float) -> float:
        """Take ``count`` bytes that have come; the seconds to wait until more may come."""
        refilled = self._free + max(0.0, now - self._then) * self._rate
        self._free, self._then = min(refilled, float(self._rate)) - count, now
        return max(0.0, -self._free / self._rate)
