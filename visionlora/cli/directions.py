"""``visionlora inspect ADAPTER --directions``."""

from pathlib import Path

from visionlora.cli.show import print_table, say
from visionlora.errors import InputError
from visionlora.studies.directions import FIRST, directions
from visionlora.tasks.trained import load_trained, read_metadata


def show_directions(path: Path, checkpoint: Path | None, download: bool) -> None:
    """Print how much of each layer's update is new to its frozen weight."""
    trained = load_trained(path, checkpoint, merged=False, download=download)
    if read_metadata(trained.path).get("format") == "pt":
        raise InputError(f"{trained.path}: every weight of this model was trained, there is no update to look at")
    found = directions(trained.model)
    if not found:
        raise InputError(f"{trained.path}: adapts no layer, it holds a head alone")
    print_table(
        ["layer", "rows x columns", "main", "update / weight", "new", "by chance", f"intruders of {FIRST}"],
        [
            [
                one.path,
                f"{one.shape[0]} x {one.shape[1]}",
                str(one.main),
                f"{one.size:.4f}",
                f"{one.new:.3f}",
                f"{one.chance:.3f}",
                str(one.intruders),
            ]
            for one in found
        ],
    )
    say(
        "new: the share of the update's energy outside of the directions that hold 90% of the frozen weight's (main of "
        "them); by chance: of an update in random directions; intruders: of the adapted weight's first singular "
        "vectors, those that the frozen weight has no like of"
    )
