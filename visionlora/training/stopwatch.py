"""What a run's time goes into."""

import time


class Stopwatch:
    """Seconds by what they were spent on.

    Where a device computes by itself, its time is counted where the program waits for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Leave out what went by since the last lap."""
        self._last = time.perf_counter()

    def lap(self, spent_on: str) -> None:
        """Add what went by since the last lap."""
        now = time.perf_counter()
        self.seconds[spent_on] = self.seconds.get(spent_on, 0.0) + now - self._last
        self._last = now

    def __str__(self) -> str:
        """The largest shares first, such as ``backward 52%, forward 31%``; without what rounds to 0%."""
        total = sum(self.seconds.values())
        shares = sorted(((seconds / total, name) for name, seconds in self.seconds.items()), reverse=True)
        return ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.005)
