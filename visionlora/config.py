"""The configuration of a run: a strict schema for each task, read from YAML with dotted overrides."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visionlora.config_errors import explain, sections_of
from visionlora.errors import InputError, did_you_mean, some
from visionlora.plain_yaml import read_yaml

Fraction = Annotated[float, Field(ge=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
Triple = tuple[Finite, Finite, Finite]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """What every task says of its plain model.

    ``checkpoint`` is a local file (safetensors or pth) in the place of the hub's weights. What is None comes from
    the model's own data config.
    """

    name: str
    pretrained: bool = True
    checkpoint: Path | None = None
    mean: Triple | None = None
    std: Triple | None = None


class ClassifierSection(ModelSection):
    """Which plain classifier to start from. ``img_size`` is one side or (height, width) in pixels."""

    img_size: AtLeastOne | tuple[AtLeastOne, AtLeastOne] | None = None
    interpolation: str | None = None
    crop_pct: Positive | None = None
    drop_rate: Fraction = 0.0
    drop_path_rate: Fraction = 0.0


class AnchorSection(_Section):
    """Anchors of each level of a pyramid, finest first, as ``models.anchors.Anchors`` has them."""

    sizes: list[list[Positive]]
    aspect_ratios: list[list[Positive]]


class DetectorSection(ModelSection):
    """Which plain detector to start from, as ``models.detector.create_detector`` takes it.

    ``name`` is retinanet, fcos, faster_rcnn or mask_rcnn over a timm ``backbone``, whose weights ``checkpoint`` then
    holds, or one of torchvision's detectors. ``size`` is the longest side of an image in pixels; ``levels``,
    ``fpn_channels`` and ``head_convs`` lay out what is new over a backbone. ``anchors: fit`` moves the anchors to
    the training boxes first; the model's file then has them.
    """

    backbone: str | None = None
    size: AtLeastOne | None = None
    levels: list[int] | None = None
    fpn_channels: AtLeastOne | None = None
    head_convs: AtLeastOne | None = None
    anchors: Literal["fit"] | AnchorSection | None = None


class SegmenterSection(ModelSection):
    """Which plain segmenter to start from, as ``models.segmenter.create_segmenter`` takes it.

    ``name`` is unet, fpn, deeplabv3plus, upernet, segformer, or linear or multilevel for plain ViTs, over a timm
    ``backbone``, whose weights ``checkpoint`` then holds, or one of torchvision's segmenters. ``channels`` is the width
    of a decoder over a backbone. ``size`` is the longest side of a whole image in pixels.
    """

    backbone: str | None = None
    channels: AtLeastOne | None = None
    size: AtLeastOne = 512


class DataSection(_Section):
    """What every task says of its images: the folder they lie in, and how they reach the model."""

    root: Path | None = None
    skip_unreadable: bool = False
    augment: Literal["none", "light", "strong", "surveillance"] = "light"
    workers: Annotated[int, Field(ge=0)] = 2


class ClassificationData(DataSection):
    """Which labelled images.

    An image folder: ``root`` with ``train`` and ``val`` inside, each with a folder per class, or with the class
    folders themselves. A table: ``csv`` with the columns path, label and split, its paths relative to ``root``.
    ``train`` and ``val`` name other folders, or other values of the column split. Where there is no validation
    part, ``val_fraction`` of the training images is split off at random.
    """

    csv: Path | None = None
    train: str | None = None
    val: str | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    multilabel: bool = False
    balanced: bool = False


Selection = str | dict[str, list[Annotated[str, Field(coerce_numbers_to_str=True)]]] | None
"""Images of an annotated data set: a part's name, or values by field such as ``{day: [20171027, 20171030]}``."""


class AnnotatedData(DataSection):
    """Which annotated images.

    ``annotations`` is a COCO .json, a YOLO data.yaml or a folder of Pascal VOC; ``val_annotations`` another one for
    validation; ``root`` the folder of the images, if it is not the layout's own. ``train`` and ``val`` choose a part
    (by default those called train and val, where there are such) or images by their fields. Where nothing says
    what to validate on, that is the last ``val_fraction`` of the images, in the order of the file or of the field
    ``order_by``, and ``gap`` images before them are not used: neighbours in a video are nearly equal.

    ``leave_out`` are classes whose objects become background, and ``every`` takes each n-th training image alone.
    """

    annotations: Path | None = None
    val_annotations: Path | None = None
    train: Selection = None
    val: Selection = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    gap: Annotated[int, Field(ge=0)] = 0
    order_by: str | None = None
    leave_out: list[str] = []
    every: AtLeastOne = 1


class DetectionData(AnnotatedData):
    """Which annotated images, and how they are shown.

    Images with classes that a smaller share of them than ``repeat_threshold`` shows come more often (LVIS).
    ``tile`` cuts images into windows of so many pixels a side that share ``tile_overlap`` pixels, for small objects.
    """

    repeat_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    tile: AtLeastOne | None = None
    tile_overlap: Annotated[int, Field(ge=0)] = 0


class SegmentationData(AnnotatedData):
    """Which images with a class for every pixel, and how they are shown.

    Mask files: ``classes`` is the YAML file that names the classes. ``root`` holds the images and masks of each part
    in one of the known layouts (images/train with masks/train, train/images with train/masks, train with trainannot,
    or images with masks); or ``images`` and ``masks`` are their folders, which may have a folder for each part.
    ``mask_suffix`` is what the masks' names have before their ending besides. ``train`` and ``val`` name parts.
    What says which of annotated images to use goes for masks too, but for what needs objects or fields.

    Objects with masks: ``annotations`` and its likes; ``background`` names the class of what no object covers, null
    ignores that.

    ``crop`` shows windows of so many pixels, one side or (height, width), of the resized training images. ``window``
    evaluates in windows of so many pixels a side that share at least ``window_overlap``.
    """

    classes: Path | None = None
    images: Path | None = None
    masks: Path | None = None
    mask_suffix: str = ""
    background: str | None = "background"
    crop: AtLeastOne | tuple[AtLeastOne, AtLeastOne] | None = None
    window: AtLeastOne | None = None
    window_overlap: Annotated[int, Field(ge=0)] = 0


class LoRASection(_Section):
    """What is adapted; the fields are those of ``visionlora.LoRAConfig``. ``unfreeze`` None is the head."""

    rank: AtLeastOne = 8
    alpha: Finite = 16.0
    targets: str | list[str] = "all"
    exclude: list[str] = []
    unfreeze: list[str] | None = None
    rank_pattern: dict[str, AtLeastOne] = {}
    alpha_pattern: dict[str, Finite] = {}
    method: Literal["lora", "rslora"] = "lora"
    batchnorm: Literal["frozen", "recalibrate", "train"] = "frozen"


class TrainSection(_Section):
    """How it is trained.

    ``method`` is ``lora``, ``head`` (a linear probe) or ``full`` (fine-tuning of every weight). ``lr`` is the
    learning rate of the adapter (or of the backbone, with ``full``), ``head_lr`` that of unfrozen modules.
    It is evaluated after every ``evaluate_every``-th epoch and the last; ``patience`` evaluations without a better
    ``monitor`` end the run, 0 never does. ``log_every`` and
    ``checkpoint_every`` count optimizer steps; a checkpoint is also written after every epoch.
    """

    method: Literal["lora", "head", "full"] = "lora"
    epochs: AtLeastOne = 10
    batch_size: AtLeastOne = 32
    accumulate: AtLeastOne = 1
    lr: Positive = 1e-3
    head_lr: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    warmup_epochs: NotNegative = 1.0
    clip: NotNegative = 1.0
    autocast: Literal["off", "bf16", "fp16"] = "off"
    channels_last: bool = False
    device: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    monitor: str | None = None
    evaluate_every: AtLeastOne = 1
    patience: Annotated[int, Field(ge=0)] = 0
    log_every: AtLeastOne = 10
    checkpoint_every: AtLeastOne = 200


class ClassificationTrain(TrainSection):
    """How a classifier is trained: as everything, and with what mixes images or labels."""

    label_smoothing: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0


class SegmentationTrain(TrainSection):
    """How a segmenter is trained.

    ``loss`` has the weights of cross_entropy, dice and focal, which are summed; ``focal_gamma`` is focal's exponent.
    ``class_weights`` make rare classes count for more in cross_entropy and focal.
    """

    loss: dict[str, Finite] = {"cross_entropy": 1.0}
    focal_gamma: NotNegative = 2.0
    class_weights: Literal["none", "median_frequency"] = "none"


class RunConfig(_Section):
    """What the configs of all tasks have in common. ``out`` is the run's folder."""

    task: str
    model: ModelSection
    data: DataSection
    lora: LoRASection = LoRASection()
    train: TrainSection = TrainSection()
    out: Path = Path("runs/run")


class ClassificationConfig(RunConfig):
    """A whole run of image classification."""

    task: Literal["classification"] = "classification"
    model: ClassifierSection
    data: ClassificationData = ClassificationData()
    train: ClassificationTrain = ClassificationTrain()


class DetectionConfig(RunConfig):
    """A whole run of object detection, or of instance segmentation with a model that makes masks."""

    task: Literal["detection"] = "detection"
    model: DetectorSection
    data: DetectionData = DetectionData()


class SegmentationConfig(RunConfig):
    """A whole run of semantic segmentation."""

    task: Literal["segmentation"] = "segmentation"
    model: SegmenterSection
    data: SegmentationData = SegmentationData()
    train: SegmentationTrain = SegmentationTrain()


SCHEMAS: dict[str, type[RunConfig]] = {
    "classification": ClassificationConfig,
    "detection": DetectionConfig,
    "segmentation": SegmentationConfig,
}
"""By the key ``task``; the first is what a config without one is."""


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file, apply overrides such as ``train.epochs=5``, and check the whole.

    Raises:
        InputError: no such file, no YAML, an unknown key (the nearest known one is shown), or a bad value.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such config file")
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        what = "nothing" if values is None else f"a {type(values).__name__}"
        raise InputError(f"{path}: holds {what}, not settings; write 'key: value' lines")
    # A section whose lines are all commented out reads as null.
    values |= {name: {} for name in sections_of(RunConfig) if name in values and values[name] is None}
    return check_config(parse_overrides(values, overrides or []), str(path))


def parse_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply ``section.key=value`` texts to plain settings, in place; values are read as YAML."""
    for override in overrides:
        _apply(values, override)
    return values


def check_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Plain data -> the config of its task; an InputError is one line that begins with ``where``."""
    task = values.get("task", next(iter(SCHEMAS)))
    if task not in list(SCHEMAS):
        given = f"'{task}'{did_you_mean(task, SCHEMAS)}" if isinstance(task, str) else "no name"
        raise InputError(f"{where}: task is {given}; there are {some(SCHEMAS)}")
    schema = SCHEMAS[task]
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {'; '.join(explain(error, values, schema))}") from error


def dump_config(config: RunConfig) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"'{override}' is no override; write section.key=value, such as train.epochs=5")
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise InputError(f"'{override}': '{section}' is not a section")
    try:
        # A leading * would be an alias, and here there is nothing that it could refer to: it is a glob.
        values[last] = text if text.startswith("*") else read_yaml(text)
    except InputError as error:
        raise InputError(f"'{override}': {error}; put the value in quotes if it is text") from error
