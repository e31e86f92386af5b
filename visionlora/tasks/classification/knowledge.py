"""What a classifier's base knows beside the run's own classes: images, and the head that it came with."""

from dataclasses import replace
from pathlib import Path

import torch

from visionlora.data.classification.folder_labels import read_folder
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.samples import ClassificationDataset
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.folders import images_in, refuse_missing_folder, subfolders
from visionlora.data.images import check_readable
from visionlora.data.loading import batches, make_loader
from visionlora.errors import InputError
from visionlora.models.classifier import Classifier, own_outputs
from visionlora.tasks.classification.config import ClassifierSection
from visionlora.tasks.classification.inference import TrainedClassifier
from visionlora.tasks.evaluation import to_device
from visionlora.tasks.models import Known, head_is_new


def read_knowledge(images: Path) -> tuple[list[Path], LabelledImages | None]:
    """The images, and the same with their labels where they lie in class folders.

    Raises:
        InputError: there are none, or some can't be read.
    """
    refuse_missing_folder(images)
    if any(images_in(folder) for folder in subfolders(images)):
        data = read_folder(images)
        check_readable(data.paths, False)
        return data.paths, data
    if not (found := images_in(images)):
        raise InputError(f"{images}: holds no image to be retained")
    check_readable(found, False)
    return found, None


def refuse_no_head(built: Classifier, images: Path, outputs: int) -> None:
    """Raise InputError unless the model has a head that its weights came with: a new one is zero."""
    if head_is_new(built):
        raise InputError(
            f"{images}: the base has no head of its own for {outputs} classes; to see what is retained, give class "
            "folders of all classes that its weights know, or images without class folders"
        )


def outputs_of(section: ClassifierSection, labelled: LabelledImages | None) -> int:
    """How many outputs the base's own head has."""
    return len(labelled.classes) if labelled is not None else own_outputs(section.name)


def known_of(
    base: TrainedClassifier,
    paths: list[Path],
    labelled: LabelledImages | None,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Known:
    """The images with their labels, or else with the base's own answers in the place of labels.

    ``base`` has the head that it came with.
    """
    if labelled is not None:
        return Known(base, labelled, labelled=True, measure="top1")
    data = LabelledImages(paths, [(0,)] * len(paths), base.classes)
    dataset = ClassificationDataset(data, eval_transform(base.preprocessing), seed=0, train=False)
    loader = make_loader(dataset, batches(list(range(len(dataset))), 0, batch_size, drop_last=False), workers)
    answers: list[int] = []
    model = base.model.eval().to(device)
    with torch.no_grad():
        for batch in loader:
            answers += model(to_device(batch["image"], device)).argmax(dim=1).tolist()
    return Known(base, replace(data, labels=[(answer,) for answer in answers]), labelled=False, measure="top1")


def as_base(built: Classifier, outputs: int, preprocessing: Preprocessing, path: Path) -> TrainedClassifier:
    """A classifier whose classes have numbers for names: a base's own are in no file."""
    names = [str(index) for index in range(outputs)]
    built.model.eval()
    return TrainedClassifier("classification", built, names, preprocessing, path, {})
