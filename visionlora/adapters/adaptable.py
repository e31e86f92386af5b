"""The modules of a base, and which of them an adapter can be put on."""

from collections.abc import Iterator

from torch import nn

from visionlora.adapters.layer import LayerAdapters
from visionlora.adapters.norm import has_running_stats
from visionlora.adapters.paths import join, named_modules
from visionlora.adapters.qkv import PARTS

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ADAPTABLE = (nn.Linear, *CONVS, nn.MultiheadAttention)
SEPARATE_WEIGHTS = dict(zip(PARTS, ("q_proj_weight", "k_proj_weight", "v_proj_weight"), strict=True))
"""Of ``nn.MultiheadAttention``, whose queries, keys and values may have a weight each."""


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``model.named_modules()`` without the adapters' and torch.compile's wrappers."""
    inside_adapters = ""
    for path, module in named_modules(model):
        if inside_adapters and path.startswith(inside_adapters):
            continue
        if isinstance(module, LayerAdapters):
            inside_adapters = f"{path}."
            continue
        yield path, module


def obstacle(layer: nn.Module, tied: dict[int, list[str]]) -> str:
    """Why the layer can't be adapted, or an empty string; ``tied``: id of a parameter -> its names."""
    if not isinstance(layer, ADAPTABLE):
        if is_normalisation(layer):
            return "normalisation layer"
        return "neither linear nor convolution nor nn.MultiheadAttention"
    names = weight_names(layer)
    if not names or hasattr(layer, "parametrizations"):
        return "its weight is parametrized (weight norm, spectral norm or pruning); remove that first"
    for name in names:
        weight = layer._parameters[name]
        assert weight is not None
        if nn.parameter.is_lazy(weight):
            return "its shape is not known before a first forward"
        if type(weight) is not nn.Parameter:
            kind = type(weight).__name__
            return f"its {name} is of class {kind}, and updates are added to plain tensors; adapt before quantising"
        if not weight.is_floating_point():
            return f"its {name} is {str(weight.dtype).removeprefix('torch.')}, not a floating-point tensor"
        if weight.is_meta:
            return f"its {name} is on the meta device; load the weights first"
        if len(tied[id(weight)]) > 1:
            return f"its {name} is tied: {' = '.join(tied[id(weight)])}"
    return ""


def tied_parameters(modules: dict[str, nn.Module]) -> dict[int, list[str]]:
    """id of every parameter -> its names; a tied one has several."""
    names: dict[int, list[str]] = {}
    for path, module in modules.items():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(join(path, name))
    return names


def weight_names(layer: nn.Module) -> list[str]:
    """Names of the parameters that a whole-layer target adapts."""
    names = ["weight"]
    if isinstance(layer, nn.MultiheadAttention):
        names = ["in_proj_weight", *SEPARATE_WEIGHTS.values()]
    return [name for name in names if layer._parameters.get(name) is not None]


def is_normalisation(module: nn.Module) -> bool:
    """Whether the module has running statistics, or "norm" in the name of its class."""
    return has_running_stats(module) or "norm" in type(module).__name__.lower()
