"""How long something will still take: one estimate, which counts down."""

from __future__ import annotations

PATIENCE_S = 2.0
"""A shorter measurement says little about the rest."""

WRONG_BY = 2.0
"""By how much an estimate must be too low before it is given up and a longer time is shown."""

FASTEST = 4.0
"""How much faster than the clock the time shown may run, to come down to a lower estimate without a jump."""


class Countdown:
    """The time left until a share of 1 is reached, from how fast the share has grown so far.

    The estimate neither jumps nor rises: it runs slower than the clock where more time is needed than it had said,
    and faster where less is. Only where it was wrong by far it begins anew.
    """

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None
        self._left_s: float | None = None
        self._updated_s = 0.0

    def estimate(self, share: float, now_s: float) -> float | None:
        """Return the seconds left; None as long as too little is known.

        Parameters
        ----------
        share
            The share that is done, 0 to 1.
        now_s
            The time by any clock.

        Returns
        -------
        float or None
            Seconds, 0 when all is done.
        """
        if self._start is None:
            self._start = share, now_s
        first, since_s = self._start
        if share >= 1:
            return 0.0
        if share <= first or now_s - since_s < PATIENCE_S:
            return self._left_s
        estimate_s = (1 - share) * (now_s - since_s) / (share - first)
        if self._left_s is None or estimate_s > WRONG_BY * self._left_s + PATIENCE_S:
            self._left_s = estimate_s
        else:
            passed_s = now_s - self._updated_s
            pace = min((self._left_s / (estimate_s + passed_s)) ** 2, FASTEST)
            self._left_s = max(self._left_s - pace * passed_s, 0.0)
        self._updated_s = now_s
        return self._left_s
