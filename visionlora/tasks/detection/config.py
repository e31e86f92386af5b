"""The config of object detection."""

from typing import Annotated, Literal

from pydantic import Field

from visionlora.sections import AnnotatedData, AtLeastOne, ModelSection, Positive, RunConfig, Section, Side, Width


class AnchorSection(Section):
    """Anchors of each level of a pyramid, finest first, as ``models.anchors.Anchors`` has them."""

    sizes: Annotated[list[Annotated[list[Positive], Field(max_length=16)]], Field(max_length=16)]
    aspect_ratios: Annotated[list[Annotated[list[Positive], Field(max_length=16)]], Field(max_length=16)]


class DetectorSection(ModelSection):
    """Which plain detector to start from, as ``models.detector.create_detector`` takes it.

    ``name`` is retinanet, fcos, faster_rcnn or mask_rcnn over a timm ``backbone``, whose weights ``checkpoint`` then
    holds, or one of torchvision's detectors. ``size`` is the longest side of an image in pixels; ``levels``,
    ``fpn_channels`` and ``head_convs`` lay out what is new over a backbone. ``anchors: fit`` moves the anchors to
    the training boxes first; the model's file then has them.
    """

    backbone: str | None = None
    size: Side | None = None
    levels: Annotated[list[int], Field(max_length=16)] | None = None
    fpn_channels: Width | None = None
    head_convs: Annotated[int, Field(ge=1, le=64)] | None = None
    anchors: Literal["fit"] | AnchorSection | None = None


class DetectionData(AnnotatedData):
    """Which annotated images, and how they are shown.

    Images with classes that a smaller share of them than ``repeat_threshold`` shows come more often (LVIS).
    ``tile`` cuts images into windows of so many pixels a side that share ``tile_overlap`` pixels, for small objects.
    """

    repeat_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    tile: AtLeastOne | None = None
    tile_overlap: Annotated[int, Field(ge=0)] = 0


class DetectionConfig(RunConfig):
    """A whole run of object detection, or of instance segmentation with a model that makes masks."""

    task: Literal["detection"] = "detection"
    model: DetectorSection
    data: DetectionData = DetectionData()


SCHEMA = DetectionConfig
