"""The configuration of a run: a strict schema, read from YAML with dotted overrides."""

from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visionlora.errors import InputError, nearest, some
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
    """Which plain model to start from.

    ``checkpoint`` is a local file (safetensors or pth) in the place of the hub's weights. ``img_size`` is one
    side or (height, width) in pixels. What is None comes from the model's own data config.
    """

    name: str
    pretrained: bool = True
    checkpoint: Path | None = None
    img_size: AtLeastOne | tuple[AtLeastOne, AtLeastOne] | None = None
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
    augment: Literal["none", "light", "strong", "surveillance"] = "light"
    workers: Annotated[int, Field(ge=0)] = 2


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
    ``patience`` epochs without a better ``monitor`` end the run; 0 never does. ``log_every`` and
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
    label_smoothing: Fraction = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    autocast: Literal["off", "bf16", "fp16"] = "off"
    channels_last: bool = False
    device: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    monitor: str | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    log_every: AtLeastOne = 10
    checkpoint_every: AtLeastOne = 200


class RunConfig(_Section):
    """A whole run. ``out`` is its folder."""

    task: Literal["classification"] = "classification"
    model: ModelSection
    data: DataSection = DataSection()
    lora: LoRASection = LoRASection()
    train: TrainSection = TrainSection()
    out: Path = Path("runs/run")


_SHOWN = 4
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 80
_PLAINER = {
    "dict_type": "input should be 'key: value' pairs",
    "missing": "it has too few values",
    "model_type": "it should be a section of 'key: value' lines",
    "path_type": "input should be a path",
    "tuple_type": "input should be a valid list",
}
"""What pydantic calls by its Python type."""


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
    values |= {name: {} for name in _sections() if name in values and values[name] is None}
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
        raise InputError(f"{where}: {'; '.join(_explain(error, values))}") from error


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


def _explain(error: ValidationError, values: dict[str, Any]) -> list[str]:
    """What is wrong with the first few fields, one text each; a union reports a problem for each of its members."""
    by_field: dict[str, list[Any]] = {}
    for problem in error.errors():
        by_field.setdefault(".".join(str(part) for part in problem["loc"][:2]), []).append(problem)
    texts = [_explain_field(field, problems, values) for field, problems in by_field.items()]
    return texts if len(texts) <= _SHOWN else [*texts[:_SHOWN], f"and {len(texts) - _SHOWN} more"]


def _explain_field(field: str, problems: list[Any], values: dict[str, Any]) -> str:
    location = problems[0]["loc"]
    kind = problems[0]["type"]
    if kind == "extra_forbidden":
        return _explain_unknown([str(part) for part in location])
    if kind == "missing" and len(location) <= 2:
        return f"'{field}' is missing"
    given: Any = values
    for part in location[:2]:
        given = given[part] if isinstance(given, dict) and part in given else problems[0]["input"]
    messages = [_PLAINER.get(problem["type"], problem["msg"][0].lower() + problem["msg"][1:]) for problem in problems]
    return f"{field} is {_SHORT.repr(given)}: {', or '.join(dict.fromkeys(messages))}"


def _explain_unknown(location: list[str]) -> str:
    *section, word = location
    here = {name: ".".join([*section, name]) for name in _section(section).model_fields}
    elsewhere = {field: f"{name}.{field}" for name, kind in _sections().items() for field in kind.model_fields}
    elsewhere |= {name: name for name in RunConfig.model_fields}
    key = elsewhere.get(word) or here.get(nearest(word, here), elsewhere.get(nearest(word, elsewhere, 0.7)))
    hint = f" (did you mean '{key}'?)" if key else f"; known are {some(here.values(), 8)}"
    return f"unknown key '{'.'.join(location)}'{hint}"


def _section(location: list[str]) -> type[BaseModel]:
    return _sections().get(location[0], RunConfig) if location else RunConfig


def _sections() -> dict[str, type[BaseModel]]:
    fields = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    return {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
