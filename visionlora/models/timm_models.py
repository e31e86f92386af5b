"""Classifiers from timm."""

from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_data_config
from torch import nn

from visionlora.errors import InputError
from visionlora.models.weights import explain_mismatch, first_line, read_state_dict


def names() -> list[str]:
    """Every model name that timm knows."""
    return list(timm.list_models())


def is_known(name: str) -> bool:
    """Whether timm can create the model: by its name, with a tag, or from a hub or a local folder."""
    return name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or timm.is_model(name)


def create(
    name: str,
    num_classes: int,
    pretrained: bool,
    checkpoint: Path | None,
    img_size: tuple[int, int] | None,
    options: dict[str, float],
) -> tuple[nn.Module, list[str], dict[str, Any]]:
    """The model, its head's names, and its data config; see ``create_classifier``."""
    kwargs: dict[str, Any] = {key: value for key, value in options.items() if value}
    if img_size is not None and _builds_for_one_size(name):
        kwargs["img_size"] = img_size
    if checkpoint is not None:
        model = _from_file(name, checkpoint, kwargs)
        if model.num_classes != num_classes:
            model.reset_classifier(num_classes)  # type: ignore[operator]
    else:
        model = _from_hub(name, pretrained, {**kwargs, "num_classes": num_classes})
    return model, _head(model), resolve_data_config({}, model=model)


def _from_file(name: str, checkpoint: Path, kwargs: dict[str, Any]) -> nn.Module:
    """timm's own loading converts layouts and resamples position embeddings.

    It is strict only while the head fits, hence the model is made with the file's own head first.
    """
    outputs = _outputs(name, checkpoint)
    overlay = {"file": str(checkpoint), "num_classes": outputs}
    try:
        return timm.create_model(name, pretrained=True, num_classes=outputs, pretrained_cfg_overlay=overlay, **kwargs)
    except (RuntimeError, KeyError, AttributeError) as error:
        plain = timm.create_model(name, num_classes=outputs)
        raise InputError(explain_mismatch(checkpoint, name, plain, read_state_dict(checkpoint))) from error


def _from_hub(name: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise InputError(f"model {name}: {first_line(error)}") from error
    except (OSError, ValueError, LookupError, RuntimeError) as error:
        raise InputError(
            f"model {name}: its weights could not be fetched ({type(error).__name__}: {first_line(error)}); "
            f"give a local file as model.checkpoint, or model.pretrained=false"
        ) from error


def _head(model: nn.Module) -> list[str]:
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    found = [classifier] if isinstance(classifier, str) else list(classifier)
    return [name for name in found if any(True for _ in model.get_submodule(name).parameters())]


def _builds_for_one_size(name: str) -> bool:
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return bool(config and config.fixed_input_size)


def _outputs(name: str, checkpoint: Path) -> int:
    """How many classes the head in the file has; 0 if it holds no head."""
    config = timm.get_pretrained_cfg(name)
    classifier = config.classifier if config else None
    first = classifier if isinstance(classifier, str) or classifier is None else classifier[0]
    tensors = read_state_dict(checkpoint)
    bias = tensors.get(f"{first}.bias", tensors.get(f"{first}.weight"))
    return 0 if bias is None else int(bias.shape[0])
