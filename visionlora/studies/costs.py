"""What training a model would cost, before there are any data: counted on images of noise."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.folding import fold_batchnorm
from visionlora.adapters.model import attach
from visionlora.models.classifier import Classifier, create_classifier
from visionlora.studies.memory import kept_by
from visionlora.training.host_memory import freed_memory_kept

METHODS = ("lora", "frozen", "full")
FEW = 2
"""Images of the smaller of two counts, of which the other has one more; BatchNorm that trains asks for two."""
OPTIMIZER_STATE = 2
"""Tensors of AdamW for each that trains; with the gradient there are three more."""


@dataclass(frozen=True)
class LayerCost:
    """A layer's part, of one image.

    Attributes:
        parameters: its own.
        trainable: those of them, or of its adapter, that train.
        operations: of the forward's convolutions and matrix products; a multiplication and an addition are two.
        bytes_kept: from the forward for the backward. What two layers keep is counted with the first.
    """

    parameters: int
    trainable: int
    operations: int
    bytes_kept: int


@dataclass(frozen=True)
class Cost:
    """What training costs with one method.

    Attributes:
        trainable: parameters that train.
        file_bytes: size of what is saved.
        forward, backward: operations of an image, as in ``LayerCost``.
        fixed_bytes, image_bytes: kept for the backward, whatever the batch, and for each image in it.
        model_bytes: the model itself.
        layers: by name, those with something to say.
    """

    trainable: int
    file_bytes: int
    forward: int
    backward: int
    fixed_bytes: int
    image_bytes: int
    model_bytes: int
    layers: dict[str, LayerCost]

    def bytes_kept(self, batch: int) -> int:
        """For the backward of so many images."""
        return self.fixed_bytes + batch * self.image_bytes

    def memory(self, batch: int) -> int:
        """Bytes of a training step: the model, gradients, AdamW's state, and what is kept; workspaces come on top."""
        return self.model_bytes + 4 * self.trainable * (1 + OPTIMIZER_STATE) + self.bytes_kept(batch)


def costs_of(name: str, config: LoRAConfig, classes: int, size: int | None = None) -> dict[str, Cost]:
    """By method: LoRA as ``config`` has it, a frozen backbone with its new head, full fine-tuning.

    Counted with random weights on 2 and on 3 images of ``size`` pixels a side, by default the model's own.

    Raises:
        InputError: an unknown model, or a config that does not fit it.
    """
    return {method: _cost(*prepared(method, name, config, classes, size)) for method in METHODS}


def prepared(
    method: str, name: str, config: LoRAConfig, classes: int, size: int | None = None
) -> tuple[Classifier, int]:
    """A classifier as a run trains it with this method, in training mode, and the bytes of what would be saved."""
    classifier = create_classifier(name, classes, pretrained=False, img_size=None if size is None else (size, size))
    model = classifier.model
    if method == "full":
        file_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    else:
        chosen = config.for_model(classifier.head, [])
        file_bytes = attach(model, replace(chosen, targets=[], exclude=[]) if method == "frozen" else chosen).file_bytes
        fold_batchnorm(model, noise(classifier, 1))
    model.train()
    return classifier, file_bytes


def noise(classifier: Classifier, images: int) -> Tensor:
    """(images, 3, H, W) as the model takes them."""
    return torch.randn(images, *classifier.data_config["input_size"])


def time_steps(classifier: Classifier, batch: int, seconds: float) -> float:
    """Seconds of a training step on noise, as in a run: the median of at least three, for so long."""
    model, images = classifier.model, noise(classifier, batch)
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trains, lr=1e-6)

    def step() -> None:
        _loss(model, images).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    times: list[float] = []
    with freed_memory_kept(images.device):
        step()
        while len(times) < 3 or sum(times) < seconds:
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def _cost(classifier: Classifier, file_bytes: int) -> Cost:
    model = classifier.model
    few, more = _kept(classifier, FEW), _kept(classifier, FEW + 1)
    image_bytes = sum(more.values()) - sum(few.values())
    counter = FlopCounterMode(display=False, custom_mapping=_COUNTS)
    with counter:
        loss = _loss(model, noise(classifier, FEW))
        forward = counter.get_total_flops()
        by_layer = {path.partition(".")[2]: sum(of.values()) for path, of in counter.get_flop_counts().items()}
        loss.backward()
    model.zero_grad(set_to_none=True)
    total = counter.get_total_flops()
    parameters = dict(model.named_parameters())
    layers = {}
    for path, module in base_modules(model):
        mine = [p for _, p in module.named_parameters(recurse=False)]
        trains = sum(p.numel() for key, p in parameters.items() if p.requires_grad and _owner(key) == path)
        of_image = more.get(path, 0) - few.get(path, 0)
        work = by_layer.get(path, 0) // FEW if mine else 0
        if mine or of_image:
            layers[path] = LayerCost(sum(p.numel() for p in mine), trains, work, of_image)
    return Cost(
        trainable=sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad),
        file_bytes=file_bytes,
        forward=forward // FEW,
        backward=(total - forward) // FEW,
        fixed_bytes=sum(few.values()) - FEW * image_bytes,
        image_bytes=image_bytes,
        model_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
        layers=layers,
    )


def _of_convolution_backward(grad: Any, x: Any, weight: Any, *settings: Any, **_named: Any) -> int:
    """Operations of the gradients that are asked for. torch's own count takes each group for the whole convolution.

    Args:
        grad, x, weight: tensors: the output's gradient, the input and the weight.
        settings: bias sizes, stride, padding, dilation, whether it is transposed, output padding, groups, output mask.
    """
    transposed, mask = settings[4], settings[7]
    places = x.numel() if transposed else grad.numel()
    each: int = 2 * places * math.prod(weight.shape[1:])
    return each * (bool(mask[0]) + bool(mask[1]))


_of_convolution_backward._get_raw = True  # type: ignore[attr-defined]  # tensors, not their shapes
_COUNTS = {torch.ops.aten.convolution_backward: _of_convolution_backward}


def _kept(classifier: Classifier, images: int) -> dict[str, int]:
    """Bytes that the forward of so many images keeps, by the innermost layer at work."""
    batch = noise(classifier, images)
    with _inside(classifier.model) as place:
        return kept_by(classifier.model, lambda: _loss(classifier.model, batch), place)


def _owner(parameter: str) -> str:
    """The layer that a parameter, or one of its adapter, belongs to."""
    parts = parameter.split(".")
    return ".".join(parts[: parts.index("adapters")] if "adapters" in parts else parts[:-1])


def _loss(model: nn.Module, images: Tensor) -> Tensor:
    logits = model(images)
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(images), dtype=torch.int64))


@contextmanager
def _inside(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Within the block, a function that gives the name of the innermost layer at work."""
    stack: list[str] = []

    def leave(*_given: object) -> None:
        stack.pop()

    handles = []
    for path, module in base_modules(model):
        handles.append(module.register_forward_pre_hook(lambda _module, _inputs, path=path: stack.append(path)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield lambda: stack[-1] if stack else ""
    finally:
        for handle in handles:
            handle.remove()
