"""The config of image classification."""

from typing import Literal

from visionlora.sections import (
    ClassificationData,
    Fraction,
    ModelSection,
    NotNegative,
    Positive,
    RunConfig,
    Side,
    TrainSection,
)


class ClassifierSection(ModelSection):
    """Which plain classifier to start from. ``img_size`` is one side or (height, width) in pixels."""

    img_size: Side | tuple[Side, Side] | None = None
    interpolation: str | None = None
    crop_pct: Positive | None = None
    drop_rate: Fraction = 0.0
    drop_path_rate: Fraction = 0.0


class ClassificationTrain(TrainSection):
    """How a classifier is trained: as everything, and with what mixes images or labels."""

    label_smoothing: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0


class ClassificationConfig(RunConfig):
    """A whole run of image classification."""

    task: Literal["classification"] = "classification"
    model: ClassifierSection
    data: ClassificationData = ClassificationData()
    train: ClassificationTrain = ClassificationTrain()


SCHEMA = ClassificationConfig
