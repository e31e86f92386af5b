"""``visionlora predict`` with a segmenter."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionlora.cli.predict import SHOWN
from visionlora.cli.show import check_out, print_table, progress
from visionlora.cli.sources import Source, check_folder, count_images, drawing, find_sources, refuse_twins
from visionlora.data.segmentation.mask_files import write_mask
from visionlora.files import write_json
from visionlora.tasks.segmentation.figures import overlay
from visionlora.training.run import pick_device
from visionlora.training.segmenting import colors_of, predict_masks, values_of
from visionlora.training.trained import Trained

_LISTED = 4
"""Classes of an image in the table, those with most pixels."""


@dataclass(frozen=True)
class Options:
    """What is wanted of the predictions.

    Attributes:
        out: the file for each image's shares of the classes, as JSON.
        masks: an empty or absent folder for the masks, in the values of the masks that were trained on; of a video
            it gets a folder with a mask for each frame.
        draw: another for the images, and videos, with the classes over them.
        every: take each n-th frame of a video.
    """

    out: Path | None
    masks: Path | None
    draw: Path | None
    every: int


def predict(trained: Trained, paths: list[Path], options: Options, device: str, skip_unreadable: bool) -> None:
    """Print a table of what was found, and write masks and drawings if asked."""
    check_out(options.out)
    check_folder(options.masks, "--masks")
    check_folder(options.draw, "--draw")
    sources = find_sources(paths, options.every, skip_unreadable)
    refuse_twins(sources, options.masks, "--masks", "mask")
    refuse_twins(sources, options.draw, "--draw", "drawing")
    values, colors, place = values_of(trained), colors_of(trained), pick_device(device)
    trained.model.to(place)
    results: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    with progress("predicting", count_images(sources)) as advance:
        for source in sources:
            counts = np.zeros(len(trained.classes), np.int64)
            with ExitStack() as files:
                draw = drawing(source, options.draw, files)
                for chunk in source.chunks():
                    masks = predict_masks(trained, [image for _, image in chunk], place)
                    for (frame, image), mask in zip(chunk, masks, strict=True):
                        own = np.bincount(mask.ravel(), minlength=len(counts))
                        counts += own
                        results.append({"image": source.image_id(frame), "shares": _shares(own, trained.classes)})
                        if options.masks is not None:
                            write_mask(options.masks / _mask_name(source, frame), mask, values, colors)
                        if draw is not None:
                            draw(overlay(image, mask, colors))
                    advance(len(chunk))
            shares = sorted(_shares(counts, trained.classes).items(), key=lambda item: -item[1])
            rows.append([str(source.path), "  ".join(f"{name} {share:.1%}" for name, share in shares[:_LISTED])])
    print_table(["image", "classes with most pixels"], rows[:SHOWN])
    if len(rows) > SHOWN:
        print(f"and {len(rows) - SHOWN} more{'' if options.out else '; --out FILE writes them all'}")
    if options.out is not None:
        write_json(options.out, results)
    for what, folder in {"masks": options.masks, "drawings": options.draw}.items():
        if folder is not None:
            print(f"{what} written into {folder}")


def _shares(counts: np.ndarray, classes: list[str]) -> dict[str, float]:
    """Class -> its share of the pixels, of the classes that there are."""
    total = int(counts.sum())
    return {name: count / total for name, count in zip(classes, counts.tolist(), strict=True) if count}


def _mask_name(source: Source, frame: int | None) -> Path:
    return source.name.with_suffix(".png") if frame is None else source.name.with_suffix("") / f"{frame:06}.png"
