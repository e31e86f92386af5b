"""Where in a model a mixed batch is computed camera by camera: in the smallest parts that can be."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from visionlora.adapters.fleet.watching import Call, Seen


@dataclass(frozen=True)
class Plan:
    """How a mixed batch goes through a model.

    Attributes:
        regions: module -> the modules whose tensors are read while it is called. It is run once for each camera, on
            the camera's rows, with the camera's tensors in those.
        calls: of a module of ``regions``, as they were seen.
        unread: modules with tensors of cameras that nobody read, and nobody may.
        why: why the whole model is run camera by camera instead; empty where it is not.
    """

    regions: dict[nn.Module, list[nn.Module]] = field(default_factory=dict)
    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    unread: list[nn.Module] = field(default_factory=list)
    why: str = ""


def plan(seen: Seen, names: Mapping[nn.Module, str]) -> Plan:
    """The plan for a model that was watched; ``names`` of all modules with tensors of cameras."""
    splits = {module: all(call.splits() for call in calls) for module, calls in seen.calls.items()}
    chosen: set[nn.Module] = set()
    for owner, stacks in seen.touched.items():
        for stack in stacks:
            # The first is the model itself.
            found = next((call.module for call in reversed(stack[1:]) if splits[call.module]), None)
            if found is None:
                return Plan(why=f"'{names[owner]}' is read where the images of a batch can't be told apart")
            chosen.add(found)
    regions: dict[nn.Module, list[nn.Module]] = {module: [] for module in chosen}
    for owner, stacks in seen.touched.items():
        within = {call.module for stack in stacks for call in stack}
        for module in chosen & within:
            regions[module].append(owner)
    unread = [module for module in names if module not in seen.touched]
    return Plan(regions, {module: seen.calls[module] for module in chosen}, unread)
