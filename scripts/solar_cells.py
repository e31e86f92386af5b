"""Write ELPV's solar cells (PyPI ``elpv-dataset``) as an image folder of functional and defective ones.

python scripts/solar_cells.py elpv_dataset/data --out cells
python scripts/solar_cells.py elpv_dataset/data --out sure --sure 120 150
"""

import argparse
import random
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionlora.files import new_folder

_TEST = 0.25
"""Of the cells, as in Deitsch et al. 2019 (arXiv:1807.02894), who train on 1,968 and test on 656."""


@dataclass(frozen=True)
class Cell:
    """An image, how likely experts hold it to be defective (0, 1/3, 2/3 or 1), and the kind of its module."""

    image: Path
    likelihood: float
    kind: str

    @property
    def label(self) -> str:
        """The class: what is more likely than not."""
        return "defective" if self.likelihood > 0.5 else "functional"


def read_cells(folder: Path) -> list[Cell]:
    """What ``labels.csv`` says of the images beside it, in its order."""
    lines = [line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Cell(folder / image, float(likelihood), kind) for image, likelihood, kind in lines]


def of_all(cells: Iterable[Cell], seed: int) -> dict[str, list[Cell]]:
    """A quarter of each likelihood and kind of module to test on, and the rest to train on."""
    groups: dict[tuple[float, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.likelihood, cell.kind].append(cell)
    parts: dict[str, list[Cell]] = {"train": [], "val": []}
    generator = random.Random(seed)
    for group in groups.values():
        generator.shuffle(group)
        tested = round(_TEST * len(group))
        parts["val"] += group[:tested]
        parts["train"] += group[tested:]
    return parts


def of_the_sure(cells: Sequence[Cell], train: int, test: int, seed: int) -> dict[str, list[Cell]]:
    """So many of each class to train and to test on, of those of which the experts are sure."""
    parts: dict[str, list[Cell]] = {"train": [], "val": []}
    generator = random.Random(seed)
    for likelihood in (0.0, 1.0):
        sure = [cell for cell in cells if cell.likelihood == likelihood]
        chosen = generator.sample(sure, train + test)
        parts["val"] += chosen[:test]
        parts["train"] += chosen[test:]
    return parts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the package's folder of labels.csv and images")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, for train/CLASS and val/CLASS")
    parser.add_argument("--sure", type=int, nargs=2, metavar=("TRAIN", "TEST"), help="so many of each class, surely it")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    arguments = parser.parse_args(argv)
    cells = read_cells(arguments.data)
    sure, seed = arguments.sure, arguments.seed
    parts = of_the_sure(cells, *sure, seed) if sure else of_all(cells, seed)
    with new_folder(arguments.out) as temporary:
        for part, chosen in parts.items():
            for cell in chosen:
                (temporary / part / cell.label).mkdir(parents=True, exist_ok=True)
                shutil.copy(cell.image, temporary / part / cell.label / cell.image.name)
    print(", ".join(f"{part} {len(chosen)}" for part, chosen in parts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
