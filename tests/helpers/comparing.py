"""Compare what two forms of one model compute: output, and gradients of the input and of every factor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from helpers.cases import is_factor


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def tensors_of(value: Any) -> list[Tensor]:
    """Every floating-point tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    entries = value.values() if isinstance(value, dict) else value
    return [tensor for entry in entries for tensor in tensors_of(entry)]


def gradients(model: nn.Module, x: Tensor, call: Callable[..., Any] | None = None) -> dict[str, Tensor]:
    """Outputs, and gradients of a random projection of them; ``call`` stands in for the model (compiled, say)."""
    x = x.detach().requires_grad_()
    factors = trained(model)
    outputs = tensors_of((model if call is None else call)(x))
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    found = torch.autograd.grad(outputs, [x, *factors.values()], directions, materialize_grads=True)
    named = {f"output {index}": output.detach() for index, output in enumerate(outputs)}
    return {**named, "input": found[0], **dict(zip(factors, found[1:], strict=True))}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Each within ``tolerance`` of its norm; what is a sum that cancels counts beside the largest gradient."""
    assert found.keys() == expected.keys()
    largest = max((float(value.norm()) for name, value in expected.items() if is_factor(name)), default=0.0)
    for name, value in expected.items():
        size = max(float(value.norm()), 1e-3 * largest if is_factor(name) else 0.0)
        difference = float((found[name] - value).norm())
        assert difference <= tolerance * size, f"{name}: off by {difference / max(size, 1e-300):.2g}"
