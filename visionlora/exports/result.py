"""What an export came to."""

from dataclasses import dataclass
from pathlib import Path

from visionlora.exports.scores import Scores


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        out: the folder.
        file: the model's, in the folder.
        sha256: of that file, in hexadecimal.
        bytes: its size.
        difference: the largest of an output from the adapted model's; see ``Task.difference``.
        compared: in words, on which images, and how much of their outputs.
        scores: on the run's validation images; None without them.
        seconds: median of one image by state: ``base``, ``adapted``, ``merged`` and ``exported``. Of a model whose
            every weight was trained there are the last two alone.
    """

    out: Path
    file: str
    sha256: str
    bytes: int
    difference: float
    compared: str
    scores: Scores | None
    seconds: dict[str, float]

    def ratios(self) -> dict[str, float]:
        """The seconds relative to the first state's."""
        first = next(iter(self.seconds.values()))
        return {name: value / first for name, value in self.seconds.items()}
