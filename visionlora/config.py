"""The configuration of a run: a strict schema, read from YAML with dotted overrides."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from visionlora.errors import InputError, did_you_mean, some

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Triple = tuple[float, float, float]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """Which plain model to start from.

    ``checkpoint`` is a local file (safetensors or pth) in the place of the hub's weights. ``img_size`` is one
    side or (height, width) in pixels. What is None comes from the model's own data config.
    """

    name: str
    pretrained: bool = True
    checkpoint: Path | None = None
    img_size: Annotated[int, Field(ge=1)] | tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    interpolation: str | None = None
    crop_pct: Positive | None = None
    drop_rate: Fraction = 0.0
    drop_path_rate: Fraction = 0.0


class DataSection(_Section):
    """Which images, and how they reach the model.

    An image folder: ``root`` with ``train`` and ``val`` inside, each with a folder per class, or with the class
    folders themselves. A table: ``csv`` with the columns path, label and split, its paths relative to ``root``.
    ``train`` and ``val`` name other folders, or other values of the column split. Where there is no validation
    part, ``val_fraction`` of the training images is split off at random.
    """

    root: Path | None = None
    csv: Path | None = None
    train: str | None = None
    val: str | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    multilabel: bool = False
    skip_unreadable: bool = False
    balanced: bool = False
    augment: str = "light"
    workers: Annotated[int, Field(ge=0)] = 2


class LoRASection(_Section):
    """What is adapted; the fields are those of ``visionlora.LoRAConfig``. ``unfreeze`` None is the head."""

    rank: int = 8
    alpha: float = 16.0
    targets: str | list[str] = "all"
    exclude: list[str] = []
    unfreeze: list[str] | None = None
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    method: str = "lora"
    batchnorm: str = "frozen"


class TrainSection(_Section):
    """How it is trained.

    ``method`` is ``lora``, ``head`` (a linear probe) or ``full`` (fine-tuning of every weight). ``lr`` is the
    learning rate of the adapter (or of the backbone, with ``full``), ``head_lr`` that of unfrozen modules.
    ``patience`` epochs without a better ``monitor`` end the run; 0 never does. ``log_every`` and
    ``checkpoint_every`` count optimizer steps; a checkpoint is also written after every epoch.
    """

    method: Literal["lora", "head", "full"] = "lora"
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    lr: Positive = 1e-3
    head_lr: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    warmup_epochs: NotNegative = 1.0
    clip: NotNegative = 1.0
    label_smoothing: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    # YAML reads `off` as false.
    autocast: Annotated[Literal["off", "bf16", "fp16"], BeforeValidator(lambda v: "off" if v is False else v)] = "off"
    channels_last: bool = False
    device: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    monitor: str | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    log_every: Annotated[int, Field(ge=1)] = 10
    checkpoint_every: Annotated[int, Field(ge=1)] = 200


class RunConfig(_Section):
    """A whole run. ``out`` is its folder."""

    task: Literal["classification"] = "classification"
    model: ModelSection
    data: DataSection = DataSection()
    lora: LoRASection = LoRASection()
    train: TrainSection = TrainSection()
    out: Path = Path("runs/run")


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file, apply overrides such as ``train.epochs=5``, and check the whole.

    Raises:
        InputError: no such file, no YAML, an unknown key (the nearest known one is shown), or a bad value.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such config file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds {type(values).__name__}, not settings; write 'key: value' lines")
    return check_config(parse_overrides(values, overrides or []), str(path))


def parse_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply ``section.key=value`` texts to plain settings, in place; values are read as YAML."""
    for override in overrides:
        _apply(values, override)
    return values


def check_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Plain data -> ``RunConfig``; an InputError is one line that begins with ``where``."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {'; '.join(_explain(problem) for problem in _unique(error))}") from error


def dump_config(config: RunConfig) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"'{override}' is no override; write section.key=value, such as train.epochs=5")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"'{override}': '{section}' is not a section")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"'{override}': the value is not valid YAML ({' '.join(str(error).split())})") from error
    # YAML 1.1 wants a dot in 1e-3; people do not.
    if isinstance(values[last], str):
        try:
            values[last] = float(text)
        except ValueError:
            return


def _unique(error: ValidationError) -> list[Any]:
    """The first problem of each field; a union reports one for each of its members."""
    first: dict[tuple[Any, ...], Any] = {}
    for problem in error.errors():
        first.setdefault(problem["loc"][:2], problem)
    return list(first.values())


def _explain(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location[:2])
    if problem["type"] == "extra_forbidden":
        section = _section(location[:-1])
        known = [".".join([*location[:-1], name]) for name in section.model_fields]
        elsewhere = [f"{name}.{field}" for name, sub in _sections().items() for field in sub.model_fields]
        nearest = did_you_mean(".".join(location), known) or did_you_mean(location[-1], elsewhere)
        return f"unknown key '{'.'.join(location)}'{nearest or f'; known are {some(known, 8)}'}"
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key} is {problem['input']!r}: {message}"


def _section(location: list[str]) -> type[BaseModel]:
    return _sections().get(location[0], RunConfig) if location else RunConfig


def _sections() -> dict[str, type[BaseModel]]:
    fields = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    return {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
