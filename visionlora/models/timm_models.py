"""Classifiers from timm."""

from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_data_config
from timm.models import PretrainedCfg
from torch import nn

from visionlora.checksums import refuse_damaged, refuse_damaged_config
from visionlora.errors import InputError, did_you_mean
from visionlora.models.weights import (
    explain_mismatch,
    first_line,
    head_outputs,
    not_fetched,
    read_state_dict,
    start_at_zero,
)
from visionlora.tensor_files import open_tensors

_FOLDER = "local-dir:"
HUBS = ("hf-hub:", "hf_hub:")
"""Names of models that begin so ask a hub even what the model is."""
_REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What timm, its hub clients and torch raise for a name, a setting or weights that they can't use."""


def names() -> list[str]:
    """Every model name that timm knows."""
    return list(timm.list_models())


def is_known(name: str) -> bool:
    """Whether timm can create the model: by its name, with a tag, or from a hub or a local folder."""
    return name.startswith((*HUBS, _FOLDER)) or timm.is_model(name)


def create(
    name: str,
    num_classes: int,
    pretrained: bool,
    checkpoint: Path | None,
    img_size: tuple[int, int] | None,
    options: dict[str, float],
) -> tuple[nn.Module, list[str], dict[str, Any]]:
    """The model, its head's names, and its data config; see ``create_classifier``."""
    if "://" in name:  # parts of which timm's errors would show
        raise InputError(f"model {name}: a URL; a hub's model is named hf-hub:ORG/NAME@REVISION")
    kwargs: dict[str, Any] = {key: value for key, value in options.items() if value}
    config = published(name)
    if img_size is not None and config is not None and config.fixed_input_size:
        kwargs["img_size"] = img_size
    if checkpoint is not None:
        model = _from_file(name, checkpoint, kwargs)
        new_head = model.num_classes != num_classes
        if new_head:
            model.reset_classifier(num_classes)  # type: ignore[operator]
    else:
        model = _from_hub(name, pretrained, num_classes, kwargs)
        new_head = pretrained and model.pretrained_cfg.get("num_classes") != num_classes  # type: ignore[union-attr,operator]
    if new_head:
        start_at_zero(model, _head(model))
    return model, _head(model), resolve_data_config({}, model=model)


def creation_code(name: str, num_classes: int, img_size: tuple[int, int]) -> str:
    """Python that creates the plain model; see ``classifier.creation_code``."""
    config = published(name)
    other_size = config is not None and config.fixed_input_size and config.input_size[1:] != img_size
    size = f", img_size={img_size}" if other_size else ""
    return f"import timm\nmodel = timm.create_model({name!r}, num_classes={num_classes}{size})"


def head_name(name: str) -> str | None:
    """The layer that tells classes apart, as timm says."""
    config = published(name)
    classifier = config.classifier if config else _own_config(name)["classifier"]
    found: str | None = classifier[0] if isinstance(classifier, tuple | list) else classifier
    return found


def _from_file(name: str, checkpoint: Path, kwargs: dict[str, Any]) -> nn.Module:
    """timm's own loading converts layouts and resamples position embeddings.

    It is strict only while the head fits, hence the model is made with the file's own head first.
    """
    tensors = read_state_dict(checkpoint)
    outputs = head_outputs(tensors, head_name(name))
    # A hub or a folder as the source would go before the file.
    overlay = {"file": str(checkpoint), "source": "", "num_classes": outputs}
    try:
        return timm.create_model(name, pretrained=True, num_classes=outputs, pretrained_cfg_overlay=overlay, **kwargs)
    except _REFUSALS as error:
        _from_hub(name, False, outputs, kwargs)  # it is not the file if the model can't be made without it either
        plain = timm.create_model(name, num_classes=outputs)
        raise InputError(explain_mismatch(checkpoint, name, plain, tensors, error)) from error


def _from_hub(name: str, pretrained: bool, num_classes: int, kwargs: dict[str, Any]) -> nn.Module:
    if name.startswith(_FOLDER):
        _refuse_damaged_folder(Path(name.removeprefix(_FOLDER)))
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **kwargs)
    except _REFUSALS as error:
        if not pretrained or isinstance(error, TypeError | AssertionError):
            given = "".join(f", model.{key}={value}" for key, value in kwargs.items())
            raise InputError(f"model {name}{given}: can't be created ({first_line(error)})") from error
        raise not_fetched(name, error) from error


def _refuse_damaged_folder(folder: Path) -> None:
    """timm looks at no hash; a folder that ``export`` wrote has its own."""
    weights = folder / "model.safetensors"
    if weights.is_file():
        with open_tensors(weights) as file:
            fields: dict[str, str] = file.metadata() or {}
        refuse_damaged(weights, fields)
        refuse_damaged_config(weights, fields)


def _own_config(name: str) -> dict[str, Any]:
    """What a hub or a local folder says of its model."""
    config: dict[str, Any] = _from_hub(name, False, 0, {}).pretrained_cfg  # type: ignore[assignment]
    return config


def _head(model: nn.Module) -> list[str]:
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    found = [classifier] if isinstance(classifier, str) else list(classifier)
    return [name for name in found if any(True for _ in model.get_submodule(name).parameters())]


def published(name: str) -> PretrainedCfg | None:
    """What timm knows of the model's weights; None for one from a hub or a local folder."""
    if not timm.is_model(name):
        return None
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        base, _, tag = name.partition(".")
        known = timm.list_pretrained(f"{base}.*")
        raise InputError(
            f"model {name}: {base} has no weights tagged '{tag}'{did_you_mean(name, known)}; "
            f"timm.list_pretrained('{base}.*') shows the tags"
        ) from error
