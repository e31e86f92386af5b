"""The same model under each way of training, as a function that does one step."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import visionlora as vl

METHODS = ("full", "peft", "visionlora", "floor")
CLASSES = 10


@dataclass(frozen=True)
class Setup:
    """What all methods have in common."""

    model: str
    batch: int
    size: int
    rank: int
    route: str
    channels_last: bool
    autocast: str
    compile: bool
    device: str


def make_step(method: str, setup: Setup) -> Callable[[], None]:
    """Forward, loss, backward and optimizer step (the floor has none) on one fixed batch of noise."""
    model, images, labels = make_model(method, setup)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained) if trained else None
    called = torch.compile(model) if setup.compile else model

    def step() -> None:
        loss(called, images, labels, setup).backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def loss(model: nn.Module, images: Tensor, labels: Tensor, setup: Setup) -> Tensor:
    """The loss of a batch, scalar."""
    with torch.autocast(torch.device(setup.device).type, dtype=torch.bfloat16, enabled=setup.autocast == "bf16"):
        return F.cross_entropy(model(images), labels)


def make_model(method: str, setup: Setup, batch: int | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """The model, ready to train, and a batch for it; every method gets the same numbers."""
    torch.manual_seed(0)
    model = timm.create_model(setup.model, num_classes=CLASSES).to(setup.device)
    images = torch.randn(batch or setup.batch, 3, setup.size, setup.size).to(setup.device)
    labels = torch.randint(CLASSES, (len(images),)).to(setup.device)
    if setup.channels_last:
        model, images = (each.to(memory_format=torch.channels_last) for each in (model, images))
    return _PREPARE[method](model, images, setup), images, labels


def _full(model: nn.Module, _images: Tensor, _setup: Setup) -> nn.Module:
    return model.train()


def _visionlora(model: nn.Module, images: Tensor, setup: Setup) -> nn.Module:
    vl.attach(model, vl.LoRAConfig(rank=setup.rank, unfreeze=[_head(model)]))
    vl.set_route(model, setup.route)
    model.train()
    vl.fold_batchnorm(model, images[:1])
    return model


def _peft(model: nn.Module, _images: Tensor, setup: Setup) -> nn.Module:
    """On the same layers, grouped convolutions left out: their factors don't fit in PEFT."""
    from peft import LoraConfig, get_peft_model

    head = _head(model)
    names = [
        name
        for name, layer in _adaptable(model)
        if name != head and not name.startswith(f"{head}.") and getattr(layer, "groups", 1) == 1
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, LoraConfig(r=setup.rank, target_modules=names, modules_to_save=[head]))
    # BatchNorm frozen, as with the others; dropout and drop path are off in these models.
    return wrapped.eval()


def _floor(model: nn.Module, _images: Tensor, _setup: Setup) -> nn.Module:
    """Frozen; the backward goes down to the first adapted layer's output."""
    model.eval().requires_grad_(False)
    _, first = next(iter(_adaptable(model)))
    first.register_forward_hook(_require_grad)
    return model


def _require_grad(_layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    # Not the leaf itself, which the next ReLU could not change in place.
    return output.requires_grad_().view_as(output)


def _adaptable(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _head(model: nn.Module) -> str:
    name: str = model.pretrained_cfg["classifier"]
    return name


_PREPARE = {"full": _full, "peft": _peft, "visionlora": _visionlora, "floor": _floor}
