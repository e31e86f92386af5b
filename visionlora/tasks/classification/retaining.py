"""What a classifier with new classes still answers on images of its base's classes."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from visionlora.data.classification.folder_labels import read_folder
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.folders import images_in, refuse_missing_folder, subfolders
from visionlora.data.images import check_readable
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.classification.inference import TrainedClassifier
from visionlora.tasks.classification.task import TASK


@dataclass(frozen=True)
class Answers:
    """Of images that show what the base knows.

    Attributes:
        images: how many.
        base: share that the base answers right; None without labels.
        now: the same of the model with new classes.
        agreement: share of which the model says what the base says.
        taken: share that a new class answers.
    """

    images: int
    base: float | None
    now: float | None
    agreement: float
    taken: float


def answers_on(
    images: Path, trained: TrainedClassifier, base: TrainedClassifier, config: RunConfig, device: torch.device
) -> Answers:
    """Compare a model, whose classes begin with the base's, with the base.

    Args:
        images: class folders by the base's names, or one for each of its classes, in the order of the outputs by name;
            or a folder of any images.
        trained, base: the two.
        config: batch size and workers.
        device: to compute on.

    Raises:
        InputError: there are none, they can't be read, or their classes are not the base's.
    """
    data, labelled = _read(images, base.classes)
    before, now = (TASK.logits(one, data, config, device) for one in (base, trained))
    truth = torch.tensor([label for (label,) in data.labels])
    said, says = before.argmax(dim=1), now.argmax(dim=1)
    return Answers(
        images=len(data),
        base=_share(said == truth) if labelled else None,
        now=_share(says == truth) if labelled else None,
        agreement=_share(said == says),
        taken=_share(says >= before.shape[1]),
    )


def _share(found: torch.Tensor) -> float:
    return float(found.double().mean())


def _read(images: Path, classes: list[str]) -> tuple[LabelledImages, bool]:
    """The images, and whether they have labels."""
    refuse_missing_folder(images)
    names = [folder.name for folder in subfolders(images) if any(images_in(folder))]
    if not names:
        paths = images_in(images)
        if not paths:
            raise InputError(f"--retain {images}: holds no image")
        check_readable(paths, False)
        return LabelledImages(paths, [(0,)] * len(paths), classes), False
    if set(names) <= set(classes):
        data = read_folder(images, classes)
    elif len(names) == len(classes):
        data = replace(read_folder(images), classes=classes)
    else:
        raise InputError(
            f"--retain {images}: has {len(names)} class folders, and the base {len(classes)} classes of other names; "
            "give folders by its names, or images without class folders"
        )
    check_readable(data.paths, False)
    return data, True
