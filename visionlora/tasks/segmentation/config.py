"""The config of semantic segmentation."""

from typing import Literal

from pydantic import Field

from visionlora.sections import (
    Finite,
    ModelSection,
    NotNegative,
    RunConfig,
    SegmentationData,
    Side,
    TrainSection,
    Width,
)


class SegmenterSection(ModelSection):
    """Which plain segmenter to start from, as ``models.segmenter.create_segmenter`` takes it.

    ``name`` is unet, fpn, deeplabv3plus, upernet, segformer, or linear or multilevel for plain ViTs, over a timm
    ``backbone``, whose weights ``checkpoint`` then holds, or one of torchvision's segmenters. ``channels`` is the width
    of a decoder over a backbone. ``size`` is the longest side of a whole image in pixels.
    """

    backbone: str | None = None
    channels: Width | None = None
    size: Side = 512


class SegmentationTrain(TrainSection):
    """How a segmenter is trained.

    ``loss`` has the weights of cross_entropy, dice and focal, which are summed; ``focal_gamma`` is focal's exponent.
    ``class_weights`` make rare classes count for more in cross_entropy and focal.
    """

    loss: dict[str, Finite] = Field(default={"cross_entropy": 1.0})
    focal_gamma: NotNegative = 2.0
    class_weights: Literal["none", "median_frequency"] = "none"


class SegmentationConfig(RunConfig):
    """A whole run of semantic segmentation."""

    task: Literal["segmentation"] = "segmentation"
    model: SegmenterSection
    data: SegmentationData = SegmentationData()
    train: SegmentationTrain = SegmentationTrain()


SCHEMA = SegmentationConfig
