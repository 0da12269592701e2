"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random

_dice = random.SystemRandom()


def pause(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds before the next attempt: twice as long after each failure, at random up to a half less, so that
    those who failed together do not come back together."""
    return min(longest_s, first_s * 2.0 ** min(failures - 1, 30)) * _dice.uniform(0.5, 1.0)
