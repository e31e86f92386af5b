"""From an RGB image to a classifier's input tensor, with and without augmentation."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import timm.data
import torch
from PIL import Image
from timm.data.transforms import str_to_pil_interp

from visionlora.data.augmentations import Augmentation, classification_chain, refuse_unknown_strength
from visionlora.data.images import Triple
from visionlora.data.input_size import LARGEST_SIDE, check_number, check_triple, check_whole
from visionlora.errors import InputError, did_you_mean, shown

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocessing:
    """What a model expects of its input, in timm's terms.

    ``height`` and ``width`` in pixels; ``mean`` and ``std`` per RGB channel of values in 0 to 1; ``crop_pct`` is the
    cropped part of the resized image's side. Raises InputError for values that can't be used.
    """

    height: int
    width: int
    mean: Triple
    std: Triple
    interpolation: str
    crop_pct: float
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        check_whole("height", self.height, 1)
        check_whole("width", self.width, 1)
        check_triple("mean", self.mean)
        check_triple("std", self.std)
        if min(self.std) <= 0:
            raise InputError(f"preprocessing: give three means and three positive stds, not {self.mean} and {self.std}")
        check_number("crop_pct", self.crop_pct)
        if not 0 < self.crop_pct <= 4 or max(self.height, self.width) / self.crop_pct > 2 * LARGEST_SIDE:
            raise InputError(f"preprocessing: crop_pct is {self.crop_pct}; give a share of the side, such as 0.875")
        _known(self.interpolation, INTERPOLATIONS, "interpolation")
        _known(self.crop_mode, CROP_MODES, "crop_mode")

    @classmethod
    def from_timm(cls, data_config: dict[str, Any]) -> "Preprocessing":
        """From what ``timm.data.resolve_data_config`` returns. Raises InputError unless the input is RGB."""
        channels, height, width = data_config["input_size"]
        if channels != 3:
            raise InputError(f"the model takes {channels}-channel images; only RGB models can be used")
        return cls(
            height=height,
            width=width,
            mean=_triple(data_config["mean"]),
            std=_triple(data_config["std"]),
            interpolation=data_config["interpolation"],
            crop_pct=float(data_config["crop_pct"]),
            crop_mode=data_config["crop_mode"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of ``to_dict``. Raises InputError if a value is missing or unknown."""
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            wrong = ", ".join(sorted(values.keys() ^ names))
            raise InputError(f"preprocessing: missing or unknown: {wrong}; needed are {', '.join(sorted(names))}")
        return cls(**{**values, "mean": _triple(values["mean"]), "std": _triple(values["std"])})


def eval_transform(pre: Preprocessing) -> Callable[[np.ndarray], torch.Tensor]:
    """timm's evaluation transform: (H, W, 3) uint8 RGB -> (3, pre.height, pre.width) float32.

    The result can be pickled.
    """
    return _EvalTransform(pre)


def train_transform(pre: Preprocessing, strength: str = "light") -> "TrainTransform":
    """Augmentation of one of ``augmentations.STRENGTHS``; raises InputError for any other word."""
    return TrainTransform(pre, strength)


class TrainTransform:
    """(H, W, 3) uint8 RGB and a seed >= 0 -> (3, pre.height, pre.width) float32.

    A pure function of the two, as ``Augmentation`` is.
    """

    def __init__(self, pre: Preprocessing, strength: str) -> None:
        refuse_unknown_strength(strength)
        self.preprocessing = pre
        self.strength = strength
        self._plain = _EvalTransform(pre)
        red, green, blue = (round(255 * channel) for channel in pre.mean)
        resample = str_to_pil_interp(pre.interpolation)
        self._augment = Augmentation(
            classification_chain(strength, pre.height, pre.width, resample, (red, green, blue))
        )

    def __call__(self, image: np.ndarray, seed: int) -> torch.Tensor:
        if self.strength == "none":
            return self._plain(image)
        augmented = self._augment(image, seed)
        return _normalise(torch.from_numpy(augmented).permute(2, 0, 1).contiguous(), self.preprocessing)


class _EvalTransform:
    def __init__(self, pre: Preprocessing) -> None:
        self.preprocessing = pre
        # timm's own geometry, so that it is what the model was evaluated with: PIL's resize, which averages
        # when it shrinks. OpenCV's bicubic skips pixels instead.
        self._geometry = timm.data.create_transform(
            input_size=(3, pre.height, pre.width),
            interpolation=pre.interpolation,
            crop_pct=pre.crop_pct,
            crop_mode=pre.crop_mode,
            mean=pre.mean,  # the colour of crop_mode "border"
            normalize=False,
        )

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        return _normalise(self._geometry(Image.fromarray(image)), self.preprocessing)


def _normalise(image: torch.Tensor, pre: Preprocessing) -> torch.Tensor:
    """(3, H, W) uint8 -> float32, in the order of operations that timm uses."""
    mean = torch.tensor(pre.mean).view(3, 1, 1)
    std = torch.tensor(pre.std).view(3, 1, 1)
    return image.to(torch.float32).div_(255).sub_(mean).div_(std)


def _triple(values: Any) -> Triple:
    """Raises InputError unless there is one value per RGB channel."""
    check_triple("mean or std", values)
    red, green, blue = values
    return float(red), float(green), float(blue)


def _known(word: str, known: tuple[str, ...], what: str) -> None:
    if not isinstance(word, str) or word not in known:
        raise InputError(
            f"preprocessing: unknown {what} {shown(word)}{did_you_mean(str(word), known)}; there are {', '.join(known)}"
        )
