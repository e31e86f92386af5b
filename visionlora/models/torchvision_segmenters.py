"""torchvision's own segmenters by name, with a head for other classes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from visionlora.errors import InputError
from visionlora.models.decoders import classifier
from visionlora.models.stated import numbered_classes, stated
from visionlora.models.weights import explain_mismatch, from_torchvisions_hub, head_outputs, read_state_dict

PREFIX = "torchvision/"


def names() -> list[str]:
    """Every segmenter that torchvision knows."""
    return list(torchvision.models.list_models(module=torchvision.models.segmentation))


class TorchvisionSegmenter(nn.Module):
    """A segmenter of torchvision's that answers its logits alone: (N, 3, H, W) -> (N, classes, H, W).

    It has torchvision's parameter names without the auxiliary head's, which serves as a second loss in training from
    scratch only. So its state dict loads into ``torchvision.models.get_model(name, weights=None,
    weights_backbone=None, num_classes=len(classes))``.
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        maps = self.backbone(images)
        logits = self.classifier(maps if isinstance(self.classifier, LRASPPHead) else maps["out"])
        return F.interpolate(logits, images.shape[-2:], mode="bilinear")


def create(
    name: str, classes: Sequence[str], pretrained: bool, checkpoint: Path | None
) -> tuple[nn.Module, list[str], list[str], dict[str, Any]]:
    """The segmenter ``name`` for ``classes``: model, head, unused, data config; see ``create_segmenter``."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    config = {"mean": tuple(preset.mean), "std": tuple(preset.std)}
    plain = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(classes))
    model = TorchvisionSegmenter(plain.backbone, plain.classifier)
    head = predictors(model)
    for path in head:
        parent, _, attribute = path.rpartition(".")
        width = model.get_submodule(path).in_channels
        setattr(model.get_submodule(parent), attribute, classifier(width, len(classes)))  # type: ignore[arg-type]
    if checkpoint is None and not pretrained:
        return model, head, [], config

    tensors = read_state_dict(checkpoint) if checkpoint else from_torchvisions_hub(name, weights)
    tensors = {key: value for key, value in tensors.items() if not key.startswith("aux_classifier.")}
    stored, categories = head_outputs(tensors, head[0]), [_plain(word) for word in weights.meta["categories"]]
    own = said.classes if (said := stated(checkpoint)) is not None and len(said.classes) == stored else None
    if own is not None and own != list(classes):
        same = {index: own.index(word) for index, word in enumerate(classes) if word in own}
        tensors |= _new_head(model, tensors, head, same)
    elif checkpoint is not None and stored == len(classes):
        head = []
    else:
        rows = {
            index: categories.index(_plain(word)) for index, word in enumerate(classes) if _plain(word) in categories
        }
        tensors |= _new_head(model, tensors, head, rows if stored == len(categories) else {})
        if len(set(rows.values())) == len(classes) == stored == len(categories):
            head = []
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        source = checkpoint or Path(weights.url).name
        raise InputError(explain_mismatch(source, name, model, tensors, error)) from error
    return model, head, [], config


def own_classes(name: str, pretrained: bool, checkpoint: Path | None) -> list[str]:
    """Of the weights of the segmenter ``name``; empty where they have no head, or none are asked for."""
    categories = [_plain(word) for word in torchvision.models.get_model_weights(name).DEFAULT.meta["categories"]]
    if checkpoint is None:
        return categories if pretrained else []
    plain = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    stored = head_outputs(
        read_state_dict(checkpoint), predictors(TorchvisionSegmenter(plain.backbone, plain.classifier))[0]
    )
    return categories if stored == len(categories) else numbered_classes(stored)


def predictors(model: nn.Module) -> list[str]:
    """Names of the layers whose rows belong to classes."""
    pattern = r"classifier\.(4|low_classifier|high_classifier)"
    return [path for path, _ in model.named_modules() if re.fullmatch(pattern, path)]


def _new_head(model: nn.Module, tensors: dict[str, Tensor], head: list[str], rows: dict[int, int]) -> dict[str, Tensor]:
    """The model's fresh head, with the ``rows`` (its row -> row in the tensors) of the classes that are known."""
    found = {}
    for path in head:
        for key, fresh in model.get_submodule(path).state_dict(prefix=f"{path}.").items():
            found[key] = fresh.clone()
            if rows and key in tensors and tensors[key].shape[1:] == fresh.shape[1:]:
                found[key][list(rows)] = tensors[key][list(rows.values())].to(fresh)
    return found


def _plain(name: str) -> str:
    """``__background__`` -> ``background``."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
