"""A model run once on an example, as its own loop would call it, without a trace."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.adapters.paths import is_wrapper

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def arguments(example: Any) -> Arguments:
    """The positional and keyword arguments that an example stands for.

    A tuple holds the positional arguments, a mapping the keyword ones. Anything else, such as a tensor or a
    detector's list of images, is the one positional argument; so is a tuple or mapping in a tuple of its own.
    """
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example,), {}


def call(model: nn.Module, example: Any) -> Any:
    """What the model answers to the example."""
    args, kwargs = arguments(example)
    return model(*args, **kwargs)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from tensors_in(entry)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))


@contextmanager
def eagerly(model: nn.Module) -> Iterator[None]:
    """Within the block nothing of the model runs compiled: hooks and swapped classes are looked at as they are."""
    if not any(is_wrapper(module) or module._compiled_call_impl is not None for module in model.modules()):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def random_state_kept(model: nn.Module) -> Iterator[None]:
    """Some models draw random numbers in eval mode too."""
    python_state = random.getstate()
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python_state)


@contextmanager
def modules_kept(model: nn.Module) -> Iterator[None]:
    """Whatever forwards within the block do to buffers and attributes is undone after it, training modes too."""
    attributes = {module: dict(vars(module)) for module in model.modules()}
    buffers = {module: dict(module._buffers) for module in attributes}
    values = [(tensor, tensor.clone()) for tensor in model.buffers()]
    try:
        yield
    finally:
        for module, before in attributes.items():
            vars(module).clear()
            vars(module).update(before)
            module._buffers.clear()
            module._buffers.update(buffers[module])
        with torch.no_grad():
            for tensor, value in values:
                # Not by its version: BatchNorm writes into its statistics without telling.
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
