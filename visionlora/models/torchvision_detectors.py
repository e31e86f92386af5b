"""torchvision's own detectors by name, with a head for other classes."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from visionlora.errors import InputError
from visionlora.models.built import BuiltDetector
from visionlora.models.stated import numbered_classes, stated
from visionlora.models.weights import explain_mismatch, from_torchvisions_hub, read_state_dict

PREFIX = "torchvision/"
WITHOUT_BACKGROUND = ("fcos", "retinanet")
"""Beginnings of the names of detectors that score each class by itself; the others have a background at 0."""

_ZERO_EPS = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Detectors whose weights torchvision trained with a BatchNorm eps of 0 (its ``overwrite_eps``)."""

_PREDICTORS = {
    r"roi_heads\.box_predictor\.cls_score": 1,
    r"roi_heads\.box_predictor\.bbox_pred": 4,
    r"roi_heads\.mask_predictor\.mask_fcn_logits": 1,
    r"head\.classification_head\.cls_logits": 1,
    r"head\.classification_head\.module_list\.\d+(\.1)?": 1,
}
"""Layers whose rows belong to classes -> rows per class. Of several anchors, each has all classes in turn."""


def names() -> list[str]:
    """Every detector of boxes, or of boxes and masks, that torchvision knows."""
    known = torchvision.models.list_models(module=torchvision.models.detection)
    return [name for name in known if not name.startswith("keypoint")]


def create(name: str, classes: Sequence[str], pretrained: bool, checkpoint: Path | None) -> BuiltDetector:
    """The detector ``name`` for ``classes``; see ``create_detector``."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    background = int(not name.startswith(WITHOUT_BACKGROUND))
    labels = tuple(range(background, len(classes) + background))
    outputs = len(classes) + background
    model = _untrained(name, outputs)
    head = list(predictors(model))
    if checkpoint is None and not pretrained:
        return BuiltDetector(model, head, [], labels, _native_size(model))

    tensors = read_state_dict(checkpoint) if checkpoint else from_torchvisions_hub(name, weights)
    categories = weights.meta["categories"]
    stored = _stored_outputs(model, tensors, outputs)
    own = stated_detector(checkpoint)
    if own is not None and stored == len(own) + background and own != list(classes):
        tensors |= rows_of_same_names(model, tensors, classes, own, background)
    elif stored == len(categories):
        known = {_plain(category): label for label, category in enumerate(categories) if label and category != "N/A"}
        matches = {index: known[_plain(word)] for index, word in enumerate(classes) if _plain(word) in known}
        if len(classes) == len(known) == len(set(matches.values())):
            model, head = _untrained(name, stored), []
            labels = tuple(matches[index] for index in range(len(classes)))
        else:
            kept = {labels[index]: label for index, label in matches.items()} | ({0: 0} if background else {})
            tensors |= kept_rows(model, tensors, outputs, stored, kept)
    elif stored == outputs:
        head = []
    else:
        tensors |= {key: value for key, value in model.state_dict().items() if key.rpartition(".")[0] in head}
    _load(model, name, checkpoint or Path(weights.url).name, tensors)
    if name in _ZERO_EPS:
        _set_eps(model)
    return BuiltDetector(model, head, [], labels, _native_size(model))


def stated_detector(checkpoint: Path | None) -> list[str] | None:
    """The classes of a whole detector that ``merge`` or ``export`` wrote; None of any other file."""
    said = stated(checkpoint)
    return said.classes if said is not None and said.about.get("task") == "detection" else None


def rows_of_same_names(
    model: nn.Module, tensors: dict[str, Tensor], classes: Sequence[str], own: Sequence[str], background: int
) -> dict[str, Tensor]:
    """The model's predictors for ``classes``, with the rows of those that the tensors' ``own`` classes have, too."""
    kept = {index + background: own.index(name) + background for index, name in enumerate(classes) if name in own}
    kept |= {0: 0} if background else {}
    return kept_rows(model, tensors, len(classes) + background, len(own) + background, kept)


def predictors(model: nn.Module) -> dict[str, int]:
    """Names of the layers whose rows belong to classes -> rows per class."""
    return {
        path: rows
        for path, module in model.named_modules()
        for pattern, rows in _PREDICTORS.items()
        if isinstance(module, nn.Linear | nn.Conv2d) and re.fullmatch(pattern, path)
    }


def _untrained(name: str, outputs: int) -> nn.Module:
    # Without weights torchvision freezes nothing, and makes BatchNorm2d where it else makes FrozenBatchNorm2d.
    builder = torchvision.models.get_model_builder(name)
    model: nn.Module = builder(weights=None, weights_backbone=None, num_classes=outputs)
    return model


def _stored_outputs(model: nn.Module, tensors: dict[str, Tensor], outputs: int) -> int:
    """How many outputs per anchor the tensors' head has; the model's has ``outputs``. 0 if there is no such head."""
    layer, rows = next(iter(predictors(model).items()))
    bias = tensors.get(f"{layer}.bias")
    if bias is None or not bias.ndim:
        return 0
    anchors = model.state_dict()[f"{layer}.bias"].shape[0] // (outputs * rows)
    return bias.shape[0] // (anchors * rows)


def kept_rows(
    model: nn.Module, tensors: dict[str, Tensor], outputs: int, stored: int, kept: dict[int, int]
) -> dict[str, Tensor]:
    """The model's predictors, with the rows of what is ``kept`` (its label -> label in the tensors) from there."""
    found = {}
    for layer, rows in predictors(model).items():
        for name, parameter in model.get_submodule(layer).named_parameters():
            fresh, old = parameter.detach().clone(), tensors.get(f"{layer}.{name}")
            if old is None or old.shape[1:] != fresh.shape[1:] or old.shape[0] * outputs != fresh.shape[0] * stored:
                continue  # what does not fit stays as it is, for the loading to refuse
            per_class = fresh.view(-1, outputs, rows, *fresh.shape[1:])  # (anchors, classes, rows, ...)
            per_class[:, list(kept)] = old.view(-1, stored, rows, *old.shape[1:])[:, list(kept.values())].to(fresh)
            found[f"{layer}.{name}"] = fresh
    return found


def own_classes(name: str, pretrained: bool, checkpoint: Path | None) -> list[str]:
    """Of the weights of the detector ``name``; empty where they have no head, or none are asked for."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    categories = weights.meta["categories"]
    if checkpoint is None and not pretrained:
        return []
    background = int(not name.startswith(WITHOUT_BACKGROUND))
    stored = len(categories)
    if checkpoint is not None:
        stored = _stored_outputs(_untrained(name, 2), read_state_dict(checkpoint), 2)
    if stored == len(categories):
        return [word for word in categories[1:] if word != "N/A"]
    return numbered_classes(stored - background) if stored > background else []


def _load(model: nn.Module, name: str, source: Path | str, tensors: dict[str, Tensor]) -> None:
    # FrozenBatchNorm2d, which torchvision trained these weights with, counts no batches.
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    tensors = counters | tensors
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(explain_mismatch(source, name, model, tensors, error)) from error


def _set_eps(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = torch.finfo(torch.float32).tiny  # as good as 0, which torch refuses in training


def _plain(name: str) -> str:
    """``Traffic_Light`` -> ``traffic light``."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _native_size(model: nn.Module) -> int:
    """The longest side of a frame of 16:9 as the model was made to see it, in pixels."""
    transform = model.transform
    assert isinstance(transform, GeneralizedRCNNTransform)
    if transform.fixed_size is not None:
        return round(max(transform.fixed_size) * 16 / 9)
    return min(transform.max_size, round(transform.min_size[-1] * 16 / 9))
