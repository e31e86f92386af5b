"""How long a study will go on."""

NEGLIGIBLE = 0.5
"""Seconds within which a run was not trained but found done."""


class TimeLeft:
    """Seconds that all runs will take, corrected by those that were done.

    Args:
        expected: seconds of each run by its name, steps alone.
    """

    def __init__(self, expected: dict[str, float]) -> None:
        self._expected, self._left = dict(expected), dict(expected)
        self._done = self._spent = 0.0

    def took(self, name: str, seconds: float) -> None:
        """Count so much of the study's time as that run's. One that was not foreseen is added."""
        self._left.pop(name, None)
        if name in self._expected and seconds > NEGLIGIBLE:
            self._done += self._expected[name]
            self._spent += seconds
        self._expected.setdefault(name, seconds)

    def seconds(self) -> float:
        """What is left, as far as one can know."""
        ratio = self._spent / self._done if self._done else 1.0
        return ratio * sum(self._left.values())

    def __str__(self) -> str:
        done, minutes = len(self._expected) - len(self._left), self.seconds() / 60
        return f"[{done}/{len(self._expected)} runs, about {minutes:.0f} min left] " if self._left else ""
