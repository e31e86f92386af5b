"""The properties of an adapter library on one model, each ok or failed with a reason."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.ssd import SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead

from benchmarks.coverage_models import Case
from visionlora.adapters.adaptable import ADAPTABLE, CONVS

DETECTOR_HEADS = (RPNHead, RetinaNetHead, FCOSHead, SSDHead, SSDLiteHead)
PROPERTIES = ("identity", "alive", "merged", "reload")


@dataclass(frozen=True)
class Library:
    """What the checks need of a library.

    Attributes:
        name: for the table.
        attach: (model, names of the layers) -> the adapted model.
        factors: adapted model -> (layer's name, factor) of each adapter.
        merge: adapted model -> plain model.
        tolerance: largest difference that counts as equal, relative to the largest output.
    """

    name: str
    attach: Callable[[nn.Module, list[str]], nn.Module]
    factors: Callable[[nn.Module], Iterator[tuple[str, nn.Parameter]]]
    merge: Callable[[nn.Module], nn.Module]
    tolerance: float


@dataclass
class Result:
    """How one model fared.

    Attributes:
        layers, grouped: adapted layers, and how many of them are grouped or depthwise convolutions.
        idle: layers that no eval forward uses (auxiliary heads), left out of ``alive``.
        failures: property -> reason; a property that is not here holds.
        effect: how much the perturbed adapters change the output, relative to the largest output.
        unmerged: difference of merged and unmerged output, relative to the largest output.
    """

    group: str
    model: str
    library: str
    layers: int = 0
    grouped: int = 0
    idle: int = 0
    parameters: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    effect: float = 0.0
    unmerged: float = 0.0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every property holds."""
        return not self.failures


def check(case: Case, library: Library, grouped: bool = True) -> Result:
    """Attach to every linear and convolution layer outside the classifier, and check each property.

    Whatever goes wrong is the failure of the property that was being checked, and of those after it.
    """
    result = Result(case.group, case.name, library.name)
    reached = PROPERTIES[0]
    try:
        for name in _steps(case, library, grouped, result):
            reached = name
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        for missed in PROPERTIES[PROPERTIES.index(reached) :]:
            result.failures.setdefault(missed, reason)
    return result


def layer_names(case: Case, model: nn.Module, grouped: bool = True) -> list[str]:
    """The layers that get an adapter; ``grouped``: grouped and depthwise convolutions too."""
    left_out = case.classifier(model)
    return [
        path
        for path, layer in model.named_modules()
        if isinstance(layer, ADAPTABLE) and path not in left_out and (grouped or not is_grouped(layer))
    ]


def is_grouped(layer: nn.Module) -> bool:
    """Whether the layer is a convolution with groups."""
    return isinstance(layer, CONVS) and layer.groups > 1


def _steps(case: Case, library: Library, grouped: bool, result: Result) -> Iterator[str]:
    """Yields the property that is checked next."""
    torch.manual_seed(0)
    base = wake(case.make()).eval()
    example = case.example()
    names = layer_names(case, base, grouped)
    idle = idle_layers(case, base, example) & set(names)
    result.layers, result.idle = len(names), len(idle)
    result.grouped = sum(is_grouped(base.get_submodule(name)) for name in names)
    result.parameters = sum(parameter.numel() for parameter in base.parameters())
    # Torch picks kernels by requires_grad, so the base is frozen like an adapted model is.
    base.requires_grad_(False)
    fresh = copy.deepcopy(base)

    yield "identity"
    expected = run(case, library, base, example)
    model = library.attach(base, names).eval()
    if (difference := distance(run(case, library, model, example), expected)) > library.tolerance:
        result.failures["identity"] = f"a new adapter changes the output by {difference:.1e}"

    yield "alive"
    perturb(library, model)
    if dead := dead_layers(case, library, model, example, idle):
        result.failures["alive"] = f"{len(dead)} layers get no gradient, such as {dead[0]}"

    yield "merged"
    adapted = run(case, library, model.eval(), example)
    result.effect = distance(adapted, expected)
    if result.effect <= library.tolerance:
        result.failures.setdefault("alive", f"the adapters change the output by {result.effect:.1e} only")
    merged = library.merge(model).eval()
    result.unmerged = distance(run(case, library, merged, example), adapted)
    if result.unmerged > library.tolerance:
        result.failures["merged"] = f"merged differs from unmerged by {result.unmerged:.1e}"

    yield "reload"
    fresh.load_state_dict(merged.state_dict(), strict=True)
    if (difference := distance(run(case, library, fresh, example), adapted)) > library.tolerance:
        result.failures["reload"] = f"a base with the merged weights differs by {difference:.1e}"


def wake(model: nn.Module) -> nn.Module:
    """Fill tensors that start at zero or next to it (gains, last norms), behind which nothing would have an effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() < 1e-3:
                parameter.normal_(std=0.2)
    return model


def perturb(library: Library, model: nn.Module) -> None:
    """Move every factor away from its start, so that the adapter has an effect."""
    with torch.no_grad():
        for _, factor in library.factors(model):
            factor.add_(0.02 * torch.randn_like(factor))


def idle_layers(case: Case, base: nn.Module, example: Any) -> set[str]:
    """Layers of the plain base that get no gradient, for its forward does not use them."""
    base.requires_grad_()
    loss(case, base, example).backward()
    used = {name.rpartition(".")[0]: True for name, parameter in base.named_parameters() if parameter.grad is not None}
    base.zero_grad(set_to_none=True)
    base.eval()
    return {path for path, layer in base.named_modules() if isinstance(layer, ADAPTABLE) and path not in used}


def dead_layers(case: Case, library: Library, model: nn.Module, example: Any, idle: set[str]) -> list[str]:
    """Layers with a factor that has no gradient, or one of zeros, among those that the forward uses."""
    loss(case, model, example).backward()
    dead = dict.fromkeys(
        layer
        for layer, factor in library.factors(model)
        if layer not in idle and (factor.grad is None or not factor.grad.any())
    )
    model.zero_grad(set_to_none=True)
    return list(dead)


def loss(case: Case, model: nn.Module, example: Any) -> Tensor:
    """A number that depends on everything the model computes: a random projection, or a detector's own losses."""
    generator = torch.Generator().manual_seed(0)
    if case.detects:
        return sum(model.train()(example, case.targets()).values())
    return sum((out * torch.randn(out.shape, generator=generator)).sum() for out in tensors(model(example)))


def run(case: Case, library: Library, model: nn.Module, example: Any) -> list[Tensor]:
    """What is compared: the tensors that the model returns.

    Of a detector, a rounding error can drop a box or change the order of two. So where the comparison is not exact,
    it is of what the head returns that all boxes (or all proposals) are made from.
    """
    heads: list[Tensor] = []
    found = [module for module in model.modules() if isinstance(module, DETECTOR_HEADS)]
    hooks = [module.register_forward_hook(lambda _m, _i, output: heads.extend(tensors(output))) for module in found]
    with torch.no_grad():
        output = model(example)
    for hook in hooks:
        hook.remove()
    if not case.detects:
        return list(tensors(output))
    return heads if library.tolerance else [*heads, *tensors(output)]


def tensors(output: Any) -> Iterator[Tensor]:
    """Every floating-point tensor in nested tuples, lists and dicts."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    else:
        for entry in output.values() if isinstance(output, dict) else output:
            yield from tensors(entry)


def distance(outputs: list[Tensor], others: list[Tensor]) -> float:
    """Largest difference relative to the largest number; infinite if shapes differ or a number is not finite."""
    if [out.shape for out in outputs] != [other.shape for other in others]:
        return float("inf")
    if not all(torch.isfinite(out).all() for out in (*outputs, *others)):
        return float("inf")
    largest = max((float(other.abs().max()) for other in others if other.numel()), default=0.0)
    difference = max(
        (float((a - b).abs().max()) for a, b in zip(outputs, others, strict=True) if a.numel()), default=0.0
    )
    return difference / largest if largest else difference
