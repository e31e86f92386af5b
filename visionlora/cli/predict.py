"""``visionlora predict`` with a classifier."""

from pathlib import Path

from visionlora.cli.show import check_out, print_table, progress
from visionlora.data.folders import images_in, what_there_is
from visionlora.data.images import check_readable
from visionlora.errors import InputError, some
from visionlora.files import write_json
from visionlora.training.prediction import predict as predict_images
from visionlora.training.run import pick_device
from visionlora.training.trained import Trained

SHOWN = 40


def predict(
    trained: Trained, images: list[Path], top: int, out: Path | None, device: str, skip_unreadable: bool
) -> None:
    """Print a table of predictions, and write them all as JSON if asked."""
    check_out(out)
    paths = readable(find_images(images), skip_unreadable)
    if not paths:
        raise InputError("no image is left: none of them can be read")
    with progress("predicting", len(paths)) as advance:
        predictions = predict_images(trained, paths, top, device=pick_device(device), on_batch=advance)
    rows = [
        [str(prediction.path), "  ".join(f"{name} {probability:.3f}" for name, probability in prediction.labels)]
        for prediction in predictions[:SHOWN]
    ]
    print_table(["image", "class and probability"], rows)
    if len(predictions) > SHOWN:
        print(f"and {len(predictions) - SHOWN} more{'' if out else '; --out FILE writes them all'}")
    if out is not None:
        write_json(out, [{"image": str(p.path), "labels": [list(label) for label in p.labels]} for p in predictions])


def readable(paths: list[Path], skip_unreadable: bool) -> list[Path]:
    """The paths without those that can't be read; these are named. InputError unless they may be skipped."""
    bad = check_readable(paths, skip_unreadable)
    if bad:
        print(f"left out, for they can't be read: {some(sorted(bad))}")
    return [path for path in paths if path not in bad]


def find_images(images: list[Path]) -> list[Path]:
    """Files as they are given, and the images in folders. InputError for what isn't there."""
    paths: list[Path] = []
    for path in images:
        if path.is_dir():
            found = images_in(path)
            if not found:
                raise InputError(f"{path}: holds no image")
            paths += found
        elif path.exists():
            paths.append(path)
        else:
            raise InputError(f"{path}: no such image or folder{what_there_is(path)}")
    return paths
