"""``visionlora pick``."""

import csv
import shutil
from collections import Counter
from pathlib import Path

from visionlora.cli.configs import find_config
from visionlora.cli.show import check_folder, progress, say
from visionlora.cli.sources import find_images, readable
from visionlora.config import load_config
from visionlora.data.frame_manifest import NAME, entries_of, line_of
from visionlora.errors import InputError
from visionlora.files import new_folder
from visionlora.footage.picking import farthest_first, image_features
from visionlora.models.classifier import Classifier, create_classifier
from visionlora.models.pinning import pinned
from visionlora.training.run import pick_device

PICKED = "picked.csv"


def pick(
    given: list[Path],
    count: int,
    out: Path,
    model: str,
    config: str,
    checkpoint: Path | None,
    device: str,
    skip_unreadable: bool,
) -> None:
    """Copy the most different images into a folder, with their list of frames where they have one."""
    check_folder(out, "--out")
    paths = readable(list(dict.fromkeys(path for each in given for path in find_images(each))), skip_unreadable)
    if not 1 <= count <= len(paths):
        raise InputError(f"--count {count}: there are {len(paths)} images to pick from")
    if twice := [name for name, number in Counter(path.name for path in paths).items() if number > 1]:
        raise InputError(
            f"{len(twice)} names such as {twice[0]} are those of several images; pick from one after the other"
        )
    classifier = _model(model, config, checkpoint)
    with progress("looking at images", len(paths)) as advance:
        features = image_features(classifier, paths, pick_device(device), advance)
    chosen = [(paths[index], distance) for index, distance in farthest_first(features, count)]
    known = entries_of([path for path, _ in chosen])
    with new_folder(out) as temporary:
        with (temporary / PICKED).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["rank", "file", "distance"])
            for rank, (path, distance) in enumerate(chosen, start=1):
                shutil.copyfile(path, temporary / path.name)
                rows.writerow([rank, path.name, f"{distance:.4f}"])
        if known:
            lines = [line_of(known[path], path.name) for path, _ in chosen if path in known]
            (temporary / NAME).write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
    say(f"{count} of {len(paths)} images copied to {out}; {PICKED} has them in the order in which they were picked")
    farthest = chosen[-1][1]
    if count > 1:
        say(f"every other image is within {farthest:.3f} of one of them (of 2, the most that there can be)")


def _model(name: str, config: str, checkpoint: Path | None) -> Classifier:
    """By its name, or the one that a config adapts: of a detector or a segmenter the backbone."""
    if bool(name) == bool(config):
        raise InputError("what is to look at the images? give --model, a timm or torchvision name, or --config")
    if name:
        return create_classifier(name, 1000, checkpoint=checkpoint)
    section = load_config(find_config(config)).model
    if not hasattr(section, "img_size") and not getattr(section, "backbone", None):
        raise InputError(f"--config {config}: {section.name} has no backbone that sees images by itself; give --model")
    name = getattr(section, "backbone", None) or section.name
    weights = checkpoint or pinned(name, section.pretrained, section.checkpoint, section.sha256)
    shown = {"mean": section.mean, "std": section.std}
    return create_classifier(name, 1000, section.pretrained, weights, data_config=shown)
