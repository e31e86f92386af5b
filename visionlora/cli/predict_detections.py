"""``visionlora predict`` with a detector."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionlora.cli.predict import SHOWN
from visionlora.cli.show import check_out, print_table, progress
from visionlora.cli.sources import check_folder, count_images, drawing, find_sources, refuse_twins
from visionlora.tasks.detection.figures import draw_detections
from visionlora.tasks.detection.results import to_results, write_results
from visionlora.training.detecting import predict_detections, thresholds_of
from visionlora.training.run import pick_device
from visionlora.training.trained import Trained


@dataclass(frozen=True)
class Options:
    """What is wanted of the predictions.

    Attributes:
        out: the file for COCO's results; ``image_id`` is the image's path, with ``#`` and the frame's number for a
            video, and ``category_id`` counts the classes from 1.
        draw: an empty or absent folder for the images with what was found.
        min_score: of what is kept; None for the thresholds that the run suggests for each class.
        every: take each n-th frame of a video.
    """

    out: Path | None
    draw: Path | None
    min_score: float | None
    every: int


def predict(trained: Trained, paths: list[Path], options: Options, device: str, skip_unreadable: bool) -> None:
    """Print a table of what was found, and write results and drawings if asked."""
    check_out(options.out)
    check_folder(options.draw, "--draw")
    sources = find_sources(paths, options.every, skip_unreadable)
    refuse_twins(sources, options.draw, "--draw", "drawing")
    thresholds, place = thresholds_of(trained, options.min_score), pick_device(device)
    trained.model.to(place)
    results: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    ids = list(range(1, len(trained.classes) + 1))
    with progress("predicting", count_images(sources)) as advance:
        for source in sources:
            counts: Counter[str] = Counter()
            with ExitStack() as files:
                draw = drawing(source, options.draw, files)
                for chunk in source.chunks():
                    found = predict_detections(trained, [image for _, image in chunk], thresholds, place)
                    for (frame, image), one in zip(chunk, found, strict=True):
                        results += to_results(one, source.image_id(frame), ids)
                        counts.update(trained.classes[label] for label in one["labels"].tolist())
                        if draw is not None:
                            boxes, labels, scores = one["boxes"], one["labels"], one["scores"]
                            draw(draw_detections(image, boxes, labels, scores, one.get("masks"), trained.classes))
                    advance(len(chunk))
            shown = "  ".join(f"{name} {counts[name]}" for name in trained.classes if counts[name])
            rows.append([str(source.path), shown or "nothing"])
    print_table(["image", "objects found"], rows[:SHOWN])
    if len(rows) > SHOWN:
        print(f"and {len(rows) - SHOWN} more{'' if options.out else '; --out FILE writes them all'}")
    if options.out is not None:
        write_results(options.out, results)
    if options.draw is not None:
        print(f"drawn into {options.draw}")
