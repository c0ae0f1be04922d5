"""How often to look where nobody says when there is something: behind a pooler."""

from __future__ import annotations

import random

SOON = 0.05  # seconds until the next look after there was something


class Looking:
    """Pauses that begin short after something was found and double while there is nothing."""

    def __init__(self) -> None:
        self._pause = SOON

    def found(self) -> None:
        self._pause = SOON

    def pause(self, longest: float) -> float:
        """Seconds until the next look; with jitter, so that workers do not all look at once."""
        seconds, self._pause = min(self._pause, longest), min(2 * self._pause, longest)
        return seconds * random.uniform(0.75, 1.25)  # noqa: S311
