"""A timm backbone with a decoder, for a class per pixel."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from visionlora.errors import InputError, some
from visionlora.models.decoders import GROUP, DeepLabV3Plus, Linear, Multilevel, SegFormer, SemanticFPN, Unet, UperNet
from visionlora.models.stated import stated
from visionlora.models.timm_features import Body, create_body, feature_maps, probe
from visionlora.models.weights import explain_mismatch, read_state_dict

OVER_PYRAMIDS = ("unet", "fpn", "deeplabv3plus", "upernet", "segformer")
"""Over a CNN or a transformer with maps of several strides."""
OVER_PLAIN = ("linear", "multilevel")
"""Over a plain ViT."""
NAMES = (*OVER_PYRAMIDS, *OVER_PLAIN)
CHANNELS = 64

_STRIDES = (4, 8, 16, 32)
"""Of the maps that decoders take, as far as the backbone has them; U-Net takes one of 2 as well."""


class TimmSegmenter(nn.Module):
    """A timm model as ``backbone``, under its own parameter names, and a ``decoder`` over its maps.

    (N, 3, H, W) -> (N, classes, H, W). Images are padded with zeros, at the right and at the bottom, to multiples of
    the coarsest stride, so that every map's cells lie where the image says; the padding's logits are cut off.

    Args:
        backbone: of a ``timm_features.Body``.
        maps: indices of the body's maps, ascending.
        decoder: maps -> (N, classes, h, w).
        plain: the backbone is a plain ViT, whose last norm goes over each map.
        step: pixels, the coarsest stride.
    """

    def __init__(self, backbone: nn.Module, maps: list[int], decoder: nn.Module, plain: bool, step: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.maps = maps
        self.plain = plain
        self.step = step

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        height, width = images.shape[-2:]
        # Not by a remainder: an exporter that leaves sizes open would carry it through every layer.
        rows, columns = (height + self.step - 1) // self.step, (width + self.step - 1) // self.step
        padded = F.pad(images, (0, columns * self.step - width, 0, rows * self.step - height))
        logits = self.decoder(feature_maps(self.backbone, padded, self.maps, norm=self.plain))
        return F.interpolate(logits, padded.shape[-2:], mode="bilinear")[..., :height, :width]


def create(
    name: str, classes: Sequence[str], backbone: str, pretrained: bool, checkpoint: Path | None, channels: int | None
) -> tuple[nn.Module, list[str], list[str], dict[str, Any]]:
    """The decoder ``name`` over ``backbone``: model, head, unused, data config; see ``create_segmenter``."""
    _check(name, channels)
    own = stated_segmenter(checkpoint)
    body = create_body(backbone, *((False, None) if own else (pretrained, checkpoint)))
    plain = len(body.strides) > 1 and len(set(body.strides)) == 1
    fitting = OVER_PLAIN if plain else OVER_PYRAMIDS
    if name not in fitting:
        kind = "a plain transformer, all of whose maps have one stride" if plain else "not a plain transformer"
        raise InputError(f"model {name} does not fit {backbone}, which is {kind}; take {some(fitting)}")
    maps = _plain_maps(name, body) if plain else _pyramid_maps(name, backbone, body)
    unused = probe(backbone, body, maps, plain)
    for layer in unused:
        body.model.get_submodule(layer).requires_grad_(False)
    decoder = _decoder(name, body, maps, channels or CHANNELS, len(classes))
    model, new = TimmSegmenter(body.model, maps, decoder, plain, body.strides[maps[-1]]), ["decoder"]
    if own is not None:
        assert checkpoint is not None
        other = _decoder(name, body, maps, channels or CHANNELS, len(classes) + 1)
        new = _load_whole(model, name, classes, own, _of_classes(decoder, other), checkpoint)
    return model, new, [f"backbone.{layer}" for layer in unused], body.data_config


def stated_segmenter(checkpoint: Path | None) -> list[str] | None:
    """The classes of a whole segmenter that ``merge`` or ``export`` wrote; None of any other file."""
    said = stated(checkpoint)
    return said.classes if said is not None and said.about.get("task") == "segmentation" else None


def _of_classes(decoder: nn.Module, other: nn.Module) -> list[str]:
    """The layers whose rows belong to classes: those that differ from the other's, which is for one class more."""
    shapes = {key: tensor.shape for key, tensor in other.state_dict().items()}
    differ = [key for key, tensor in decoder.state_dict().items() if shapes[key] != tensor.shape]
    return list(dict.fromkeys(f"decoder.{key.rpartition('.')[0]}" for key in differ))


def _load_whole(
    model: nn.Module, name: str, classes: Sequence[str], own: list[str], layers: list[str], checkpoint: Path
) -> list[str]:
    """Fill the model from a file of a whole segmenter of ``own`` classes; names of its modules that stay new."""
    tensors = read_state_dict(checkpoint)
    new = [] if own == list(classes) else layers
    for key, fresh in model.state_dict().items():
        stored = tensors.get(key)
        if key.rpartition(".")[0] in new and stored is not None and len(stored) == len(own):
            tensors[key] = fresh.clone()
            for index, word in enumerate(classes):
                if word in own:
                    tensors[key][index] = stored[own.index(word)]
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(explain_mismatch(checkpoint, name, model, tensors, error)) from error
    return new


def _check(name: str, channels: int | None) -> None:
    # Half of them go in groups too.
    step = 2 * GROUP
    if channels is not None and name == "linear":
        raise InputError("model linear has no model.channels; leave them out, or take multilevel")
    if channels is not None and (channels < step or channels % step):
        raise InputError(f"model.channels is {channels}; give a multiple of {step}")


def _pyramid_maps(name: str, backbone: str, body: Body) -> list[int]:
    at = {stride: index for index, stride in enumerate(body.strides)}
    wanted = (2, *_STRIDES) if name == "unet" else _STRIDES
    found = [at[stride] for stride in wanted if stride in at]
    if 4 not in at or len(found) < 2:
        raise InputError(
            f"model {name} needs maps of a stride of 4 and coarser ones, and those of {backbone} have {some(at, 8)}; "
            f"take another model.backbone"
        )
    return [found[0], found[-1]] if name == "deeplabv3plus" else found


def _plain_maps(name: str, body: Body) -> list[int]:
    """The last block's, or the last ones of four equal parts."""
    blocks = len(body.strides)
    parts = (4,) if name == "linear" else (1, 2, 3, 4)
    return sorted({math.ceil(blocks * part / 4) - 1 for part in parts})


def _decoder(name: str, body: Body, maps: list[int], channels: int, num_classes: int) -> nn.Module:
    widths, strides = [body.channels[index] for index in maps], [body.strides[index] for index in maps]
    if name == "unet":
        return Unet(widths, strides, channels, num_classes)
    if name == "deeplabv3plus":
        # The paper's 6, 12 and 18 are for a stride of 16.
        return DeepLabV3Plus(widths, channels, num_classes, [rate * 16 // strides[-1] for rate in (6, 12, 18)])
    if name == "linear":
        return Linear(widths, num_classes)
    decoder = {"fpn": SemanticFPN, "upernet": UperNet, "segformer": SegFormer, "multilevel": Multilevel}[name]
    return decoder(widths, channels, num_classes)
