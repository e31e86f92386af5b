"""A segmenter, which gives each pixel a class, by its name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from visionlora.errors import InputError, did_you_mean, some
from visionlora.models import timm_segmenters, torchvision_segmenters
from visionlora.models.torchvision_segmenters import PREFIX
from visionlora.models.weights import check_checkpoint


@dataclass(frozen=True)
class Segmenter:
    """A plain segmenter and what one must know to feed it.

    Attributes:
        model: (N, 3, H, W), normalised with ``data_config``'s ``mean`` and ``std`` -> logits (N, classes, H, W), for
            sides of any length. Everything that any output depends on can train.
        head: names of the modules that are new, and must train fully. None where pretrained weights know
            exactly these classes.
        unused: names of the backbone's layers that no output depends on: of no use to an adapter.
        classes: their names, in the order of the logits.
        data_config: ``mean`` and ``std`` of RGB in 0..1.
    """

    model: nn.Module
    head: list[str]
    unused: list[str]
    classes: list[str]
    data_config: dict[str, Any]


def create_segmenter(
    name: str,
    classes: Sequence[str],
    *,
    backbone: str | None = None,
    pretrained: bool = True,
    checkpoint: Path | None = None,
    data_config: dict[str, Any] | None = None,
    channels: int | None = None,
) -> Segmenter:
    """Create a segmenter for ``classes``.

    Args:
        name: one of torchvision's segmenters (``deeplabv3_resnet50``, ``lraspp_mobilenet_v3_large`` ...), without
            its auxiliary head; or a decoder over a ``backbone``: ``unet``, ``fpn``, ``deeplabv3plus``, ``upernet`` or
            ``segformer`` over a CNN or a transformer with maps of several strides, ``linear`` or ``multilevel`` over
            a plain ViT.
        classes: their names. A background, if there is one, is a class like the others. torchvision's segmenters
            keep what their weights know of classes that bear a name of Pascal VOC's ("background", "car", "person"
            ...); the others' rows of the last layer are new.
        backbone: a timm name. In the model it is ``backbone``, with timm's own parameter names.
        pretrained: take weights from the library's hub, unless there is a ``checkpoint``: the whole segmenter's, or
            the backbone's.
        checkpoint: a local file of the same (safetensors or pth). A file of a whole segmenter with as many outputs
            as there are ``classes`` is taken as made for them, unless it states others. Over a ``backbone`` too it may
            be a whole segmenter's that ``visionlora merge`` or ``export`` wrote.
        data_config: ``mean`` and ``std`` that replace the weights' own.
        channels: width of the decoder, a multiple of 16; by default 64. U-Net has so many at a stride of 4, and in
            proportion to the stride elsewhere.

    Raises:
        InputError: what was given can't be used, or weights can't be fetched.
    """
    _check(name, classes, backbone, checkpoint, channels)
    if backbone is None:
        plain = name.removeprefix(PREFIX)
        model, head, unused, config = torchvision_segmenters.create(plain, classes, pretrained, checkpoint)
    else:
        model, head, unused, config = timm_segmenters.create(name, classes, backbone, pretrained, checkpoint, channels)
    replaced = data_config or {}
    config = {key: tuple(replaced.get(key) or config[key]) for key in ("mean", "std")}
    return Segmenter(model, head, unused, list(classes), config)


def own_classes(name: str, backbone: str | None, pretrained: bool, checkpoint: Path | None) -> list[str]:
    """The classes that a segmenter's weights know; empty where they are a backbone's alone, or none."""
    check_checkpoint(checkpoint)
    if (own := timm_segmenters.stated_segmenter(checkpoint)) is not None:
        return own
    return [] if backbone else torchvision_segmenters.own_classes(name.removeprefix(PREFIX), pretrained, checkpoint)


def segmenter_names() -> list[str]:
    """Every ``name`` that ``create_segmenter`` knows."""
    return [*timm_segmenters.NAMES, *torchvision_segmenters.names()]


def _check(
    name: str, classes: Sequence[str], backbone: str | None, checkpoint: Path | None, channels: int | None
) -> None:
    over_backbone = name in timm_segmenters.NAMES
    if not over_backbone and name.removeprefix(PREFIX) not in torchvision_segmenters.names():
        known = segmenter_names()
        raise InputError(f"unknown segmenter '{name}'{did_you_mean(name, known)}; known are {some(known, len(known))}")
    if over_backbone and backbone is None:
        plain = name in timm_segmenters.OVER_PLAIN
        example = "vit_small_patch16_224" if plain else "tf_efficientnet_lite0 or resnet50"
        raise InputError(f"model {name} needs a model.backbone, such as {example}")
    if not over_backbone and (backbone is not None or channels is not None):
        given = f"model.backbone={backbone}" if backbone is not None else f"model.channels={channels}"
        raise InputError(
            f"model {name} has its own backbone and decoder, so {given} can't be used; "
            f"decoders over any backbone are {some(timm_segmenters.NAMES, len(timm_segmenters.NAMES))}"
        )
    if not classes:
        raise InputError(f"model {name}: no classes; a segmenter needs one at least")
    if twice := [word for word, count in Counter(classes).items() if count > 1]:
        raise InputError(f"model {name}: class '{twice[0]}' is there more than once")
    check_checkpoint(checkpoint)
