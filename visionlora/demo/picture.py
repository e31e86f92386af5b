"""The demo's picture: night scenes with what the base and the adapted model see in them."""

from pathlib import Path

from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.images import read_image
from visionlora.files import write_atomic
from visionlora.tasks.classification.figures import BAD, GOOD
from visionlora.tasks.classification.inference import Ranked

COLUMNS = 6


def save_picture(path: Path, images: LabelledImages, before: list[Ranked], after: list[Ranked]) -> None:
    """Write a PNG: each image with the first class of both predictions, green where right."""
    from matplotlib.figure import Figure

    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(2.0 * COLUMNS, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axis, file, label, old, new in zip(axes, images.paths, images.labels, before, after, strict=False):
        truth = images.classes[label[0]]
        axis.imshow(read_image(file))
        axis.axis("off")
        for height, name, prediction in ((1.16, "before", old), (1.03, "after", new)):
            seen = prediction[0][0]
            text = f"{name}: {seen}"
            axis.text(0, height, text, transform=axis.transAxes, fontsize=10, color=GOOD if seen == truth else BAD)
    figure.suptitle("Generated night scenes: what the base sees (before), and with its adapter (after)", fontsize=11)
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=100))
