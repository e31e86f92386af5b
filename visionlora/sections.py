"""The sections of a run's config: what is the same for every task."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

from visionlora.adapters.config import LoRAConfig

Fraction = Annotated[float, Field(ge=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=16_384)]
"""Pixels of an image's side; what is larger is cut into windows."""
Width = Annotated[int, Field(ge=1, le=1024)]
"""Channels of a layer."""
Triple = tuple[Finite, Finite, Finite]

AUTO = 0
"""What stands for ``auto`` until it is a number."""


def _or_auto(value: object, number: ValidatorFunctionWrapHandler) -> int:
    checked: int = AUTO if value == "auto" else number(value)
    return checked


BatchSize = Annotated[AtLeastOne, WrapValidator(_or_auto), PlainSerializer(lambda value: value or "auto")]
"""Images, or ``auto``."""


class Section(BaseModel):
    """Settings that belong together; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """What every task says of its plain model.

    ``checkpoint`` is a local file (safetensors or pth) in the place of the hub's weights; ``sha256`` is the hash that
    it, or the file of a model named ``hf-hub:ORG/NAME@REVISION``, must have. What is None comes from the model's own
    data config.
    """

    name: str
    pretrained: bool = True
    checkpoint: Path | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    mean: Triple | None = None
    std: Triple | None = None

    @property
    def source(self) -> str:
        """Where the weights come from, as messages name it."""
        return f"model.checkpoint {self.checkpoint}" if self.checkpoint else f"model {self.name}"


class DataSection(Section):
    """What every task says of its images: the folder they lie in, and how they reach the model.

    ``frames`` is the list that ``visionlora frames`` wrote, or several, for images that were moved away from it since;
    they are found by their names. ``split_by`` has whole cameras, days or blocks of ``block_seconds`` of a camera's
    time validate, about ``val_fraction`` of the images, and uses no image within ``gap_seconds`` of those.
    ``shots`` trains on so many images of each class, drawn by the run's seed, fewer among more; of annotated images on
    so many in all, at equal distances. ``hold_out`` validates on ``val_fraction`` of the training images, and leaves
    the part to validate on unseen: for choices that are scored on that part later.
    """

    root: Path | None = None
    frames: Path | list[Path] | None = None
    split_by: Literal["camera", "day", "time"] | None = None
    block_seconds: Positive = 600.0
    gap_seconds: NotNegative = 10.0
    shots: AtLeastOne | None = None
    hold_out: bool = False
    skip_unreadable: bool = False
    augment: Literal["none", "light", "strong", "surveillance"] = "light"
    workers: Annotated[int, Field(ge=0)] = 2


Selection = str | dict[str, list[Annotated[str, Field(coerce_numbers_to_str=True)]]] | None
"""Images: a part's name, or values by field such as ``{day: [20171027, 20171030]}``."""


class ClassificationData(DataSection):
    """Which labelled images.

    An image folder: ``root`` with ``train`` and ``val`` inside, each with a folder per class, or with the class
    folders themselves. A table: ``csv`` with the columns path, label and split, its paths relative to ``root``.
    ``train`` and ``val`` name other folders, or other values of the column split; or of frames they choose by what
    their list says, such as ``{camera: [gate]}``. Where there is no validation part, ``val_fraction`` of the training
    images is split off at random. Of frames that is refused, for their neighbours are nearly equal, unless
    ``split_by=random`` and ``random_frames`` both ask for it.

    ``faulty`` says what becomes of faults: ``refuse`` them, or ``leave_out`` the images that have one.
    """

    csv: Path | None = None
    train: Selection = None
    val: Selection = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_by: Literal["camera", "day", "time", "random"] | None = None  # type: ignore[assignment]
    random_frames: bool = False
    multilabel: bool = False
    balanced: bool = False
    faulty: Literal["refuse", "leave_out"] = "refuse"


class AnnotatedData(DataSection):
    """Which annotated images.

    ``annotations`` is a COCO .json, a YOLO data.yaml or a folder of Pascal VOC, or what LabelMe, CVAT, VIA or Label
    Studio write; several in a list are parts of one data set. ``val_annotations`` is another one for validation;
    ``root`` the folder of the images, if it is not the layout's own. ``train`` and ``val`` choose a part
    (by default those called train and val, where there are such) or images by their fields. Where nothing says
    what to validate on, that is the last ``val_fraction`` of the images, in the order of the file or of the field
    ``order_by``, and ``gap`` images before them are not used: neighbours in a video are nearly equal.

    ``leave_out`` are classes whose objects become background, and ``every`` takes each n-th training image alone.

    ``faulty`` says what becomes of faults: ``refuse`` them, or ``leave_out`` what can't be mended, as the mended copy
    of check-data does. ``crowds`` are what is marked as such (iscrowd, difficult): ignored, or ``objects`` like others.
    """

    annotations: Path | list[Path] | None = None
    val_annotations: Path | list[Path] | None = None
    train: Selection = None
    val: Selection = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    gap: Annotated[int, Field(ge=0)] = 0
    order_by: str | None = None
    leave_out: list[str] = []
    every: AtLeastOne = 1
    faulty: Literal["refuse", "leave_out"] = "refuse"
    crowds: Literal["ignore", "objects"] = "ignore"


class SegmentationData(AnnotatedData):
    """Which images with a class for every pixel, and how they are shown.

    Mask files: ``classes`` is the file that names the classes, by default the one in ``root``. ``root`` holds images
    and masks of each part in one of the known layouts (images/train with masks/train, train/images with train/masks,
    train with trainannot, or images with masks); or ``images`` and ``masks`` are their folders, which may have a
    folder for each part. ``mask_suffix`` is what a mask's name has between its image's name and the ending.
    ``round_masks`` takes the nearest class for values that are none, of smoothed edges or JPEG. ``train`` and ``val``
    name parts.
    Masks are chosen as annotated images are, except by what needs objects or fields.

    Objects with masks: ``annotations`` and its likes; ``background`` names the class of what no object covers, null
    ignores that.

    ``crop`` shows windows of so many pixels, one side or (height, width), of the resized training images. ``window``
    evaluates in windows of so many pixels a side that share at least ``window_overlap``.
    """

    classes: Path | None = None
    images: Path | None = None
    masks: Path | None = None
    mask_suffix: str = ""
    round_masks: bool = False
    background: str | None = "background"
    crop: AtLeastOne | tuple[AtLeastOne, AtLeastOne] | None = None
    window: AtLeastOne | None = None
    window_overlap: Annotated[int, Field(ge=0)] = 0


class TrainSection(Section):
    """How it is trained.

    ``method`` is ``lora``, ``head`` (a linear probe) or ``full`` (fine-tuning of every weight). ``lr`` is the
    learning rate of the adapter (or of the backbone, with ``full``), ``head_lr`` that of unfrozen modules; LoRA's B has
    ``lora_plus`` times ``lr``. With ``full``, each layer's rate is ``layer_decay`` times that of the one behind it, and
    BatchNorm measures its statistics anew, but in detectors and with ``freeze_batchnorm``; its weights train.
    ``ema`` is the decay of a moving average of what trains (0.99, or 0.999 for long runs), which is then what is
    evaluated and saved; 0 is none.
    ``batch_size`` is ``auto`` for the largest power of two that a GPU's memory holds; the run's config gets the number.
    It is evaluated after every ``evaluate_every``-th epoch and the last; ``patience`` evaluations without a better
    ``monitor`` end the run, 0 never does. The run keeps its ``best`` evaluation's model, or with ``keep=last`` the last
    one's: then no epoch is chosen by what it scores, nor does ``patience`` end it. With images of what the base knew in
    ``retain`` (as ``eval --retain`` takes them; classifiers alone), an evaluation is only taken as best where the
    base's own head on the adapted backbone keeps the share ``retain_at_least`` of the base's score on them; while none
    does, it is the one that retains most. ``log_every`` and ``checkpoint_every`` count optimizer steps; a checkpoint is
    also written after every epoch. ``memory`` says what adapted layers keep for the backward (see ``set_memory``);
    with ``fast`` a run on a CPU also keeps what a step frees for the next one.
    ``compile`` is a mode of ``torch.compile``; ``reduce-overhead`` records CUDA graphs.
    With ``cache_features`` what is below all that trains is computed once for each training image and kept in the run's
    folder until the run ends, at most ``cache_limit`` GB: classifiers alone, and images that no augmentation changes.
    Training images that can't be read any more are left out, up to the share ``max_unreadable`` of all.
    A step whose loss or gradient is not finite is skipped; more than ``max_skipped_steps`` in a row stop the run.
    ``keep_classes=true`` has the base answer its own classes beside the new ones, as it did before, bit for bit;
    ``distill`` trains one model on both, with the base as teacher. ``keep_overlap`` is for detectors: where a new
    class's box and an old one's overlap by a larger IoU, the one with the lower score goes. ``merge_classes`` takes new
    classes that bear an old one's name for that class (docs/new-classes.md).
    ``devices`` GPUs, or processes on the CPU, share each batch (docs/scaling.md); ``batch_size`` is that of all. With
    ``shard_base`` each of them keeps a part of the frozen weights, for a base that does not fit on one.
    """

    method: Literal["lora", "head", "full"] = "lora"
    epochs: AtLeastOne = 10
    batch_size: BatchSize = 32
    accumulate: AtLeastOne = 1
    lr: Positive = 1e-3
    head_lr: Positive = 1e-3
    lora_plus: Positive = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze_batchnorm: bool = False
    ema: Fraction = 0.0
    weight_decay: NotNegative = 0.01
    warmup_epochs: NotNegative = 1.0
    clip: NotNegative = 1.0
    autocast: Literal["off", "bf16", "fp16"] = "off"
    channels_last: bool = False
    memory: Literal["fast", "low"] = "fast"
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    cache_features: bool = False
    cache_limit: Positive = 10.0
    device: str = "auto"
    devices: AtLeastOne = 1
    shard_base: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    monitor: str | None = None
    evaluate_every: AtLeastOne = 1
    patience: Annotated[int, Field(ge=0)] = 0
    keep: Literal["best", "last"] = "best"
    retain: Path | None = None
    retain_at_least: Annotated[float, Field(gt=0, le=1)] = 0.98
    keep_classes: bool | Literal["distill"] = False
    keep_overlap: Fraction | None = None
    merge_classes: bool = False
    log_every: AtLeastOne = 10
    checkpoint_every: AtLeastOne = 200
    max_skipped_steps: Annotated[int, Field(ge=0)] = 3
    max_unreadable: Annotated[float, Field(ge=0, le=1)] = 0.01


class RunConfig(Section):
    """What the configs of all tasks have in common. ``out`` is the run's folder."""

    task: str
    model: ModelSection
    data: DataSection
    lora: LoRAConfig = LoRAConfig()
    train: TrainSection = TrainSection()
    out: Path = Path("runs/run")


def read_model_section(schema: type[RunConfig], values: object) -> ModelSection:
    """What a file says of its plain model, as the section of its task's schema.

    Raises:
        pydantic.ValidationError: it isn't one.
    """
    kind = schema.model_fields["model"].annotation
    assert isinstance(kind, type) and issubclass(kind, ModelSection)
    return kind.model_validate(values)
