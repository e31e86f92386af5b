"""A frozen base in parts: of every large weight each of several processes keeps its own, and FSDP2 gathers the rest.

torch's ``fully_shard`` gathers the weights of a block before its forward and again before its backward, and frees them
after each. What the adapters' operations keep for the backward is the gathered weight itself, whose storage FSDP2
empties and fills again; so nothing outlives its block. What trains is left as it is, and nothing frozen is reduced.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visionlora.adapters.blocks import Block, blocks
from visionlora.adapters.example import call, modules_kept, random_state_kept
from visionlora.adapters.fingerprint import all_fingerprints, remember
from visionlora.adapters.guard import exchange
from visionlora.adapters.layer import adapted_layers, adapted_parameters, is_adapted
from visionlora.adapters.model import set_memory
from visionlora.errors import InputError

_KEY = "_visionlora_sharded"

Place = tuple[nn.Module, str]
"""Where a parameter stands."""


@dataclass
class ShardedBlock:
    """A block's weights, as pairs.

    Attributes:
        path: the block's name.
        module: the block, which FSDP2 has given its methods.
        weights: what stands in the model while the block does not run, and what does while it runs.
    """

    path: str
    module: Any
    weights: list[tuple[nn.Parameter, nn.Parameter]]

    @property
    def whole_bytes(self) -> int:
        """What is gathered while the block runs."""
        return sum(whole.numel() * whole.element_size() for _, whole in self.weights)

    def gather(self) -> None:
        """Have the whole weights in the model; all processes do."""
        self.module.unshard()

    def free(self) -> None:
        """Have the shards in the model again."""
        self.module.reshard()


def shard(model: nn.Module, example: Any, device: torch.device, all_gather: Any = None) -> list[ShardedBlock]:
    """Keep this process's part of the large frozen weights on ``device``, and all other tensors whole.

    All processes of the default process group do so, with the same model. It is done block by block (see ``blocks``),
    so that the whole base need not be on the device at any time. A large weight has two dimensions or more and as many
    rows as there are processes, and is not shared. Weights beside the blocks stay whole, as do those of a block that is
    not called (by its ``forward``, say): nobody would notice when it runs.

    The model can then be trained, evaluated and saved by ``save_adapter``, but not be copied, merged or detached. On a
    GPU it then takes as little memory as ``set_memory(model, "low")`` has it.

    Args:
        model: on the CPU, with adapters; its BatchNorm is folded before, if at all.
        example: what the model is called with, small, on the CPU; see ``fold_batchnorm``.
        device: where to compute; of a process's own, if it is a GPU.
        all_gather: in the place of FSDP2's own; see ``FSDPModule.set_custom_all_gather``.

    Returns:
        the blocks in the order in which the model runs them, one that it runs twice being there twice.

    Raises:
        InputError: the model has no blocks with frozen weights.
    """
    from torch.distributed.device_mesh import init_device_mesh

    size = dist.get_world_size()
    large = _large_weights(model, size)
    calls = _calls(model, blocks(model, large.keys()), example)
    inside = {parameter for _, block in calls for parameter in block.parameters()} & large.keys()
    if not inside:
        raise InputError(
            f"the base can't be sharded: no part of this {type(model).__name__} that it runs in turn has a frozen "
            f"weight of {size} rows or more"
        )
    for parameter in model.parameters():
        if parameter not in inside:
            parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    if device.type == "cuda":  # where an adapted weight would else be kept whole for the backward
        set_memory(model, "low")
    mesh = init_device_mesh(device.type, (size,))
    places = {parameter: place for parameter, place in large.items() if parameter in inside}
    sharded = {block: _shard_block(block, mesh, places, all_gather) for block in dict.fromkeys(calls)}
    vars(model)[_KEY] = list(sharded.values())
    return [sharded[block] for block in calls]


def frozen_bytes(model: nn.Module) -> int:
    """Bytes of frozen parameters that this process holds at the moment, shards and gathered weights included."""
    plain = [parameter for parameter in model.parameters() if not parameter.requires_grad and not _is_shard(parameter)]
    held = {parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes() for parameter in plain}
    for block in vars(model).get(_KEY, []):
        for shard, whole in block.weights:
            for storage in (shard.to_local().untyped_storage(), whole.untyped_storage()):
                held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())


def whole_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``adapted_layers``, each while its frozen weights are whole; of a sharded model all processes go through it."""
    home = {layer: block for block in vars(model).get(_KEY, []) for layer in block.module.modules()}
    gathered: ShardedBlock | None = None
    try:
        for path, layer in adapted_layers(model):
            if (block := home.get(layer)) is not gathered:
                if gathered is not None:
                    gathered.free()
                if block is not None:
                    block.gather()
                gathered = block
            yield path, layer
    finally:
        if gathered is not None:
            gathered.free()


@torch.no_grad()
def _calls(model: nn.Module, found: list[Block], example: Any) -> list[Block]:
    """Those of the blocks that are called, in the order of the calls in eval mode."""
    calls: list[Block] = []

    def note(block: Block) -> Callable[[nn.Module, Any], None]:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            calls.append(block)

        return hook

    with modules_kept(model), random_state_kept(model):
        hooks = [block[1].register_forward_pre_hook(note(block)) for block in found]
        for module in model.modules():
            module.training = False
        call(model, example)
        for hook in hooks:
            hook.remove()
    return calls


def _large_weights(model: nn.Module, size: int) -> dict[nn.Parameter, Place]:
    """What can be sharded: plain frozen parameters that stand in one place, and have a row for each process."""
    found = [
        (parameter, (module, name))
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]
    times = Counter(parameter for parameter, _ in found)
    return {
        parameter: place
        for parameter, place in found
        if times[parameter] == 1
        and type(parameter) is nn.Parameter
        and not parameter.requires_grad
        and parameter.dim() > 1
        and len(parameter) >= size
    }


def _shard_block(block: Block, mesh: Any, places: dict[nn.Parameter, Place], all_gather: Any) -> ShardedBlock:
    from torch.distributed.fsdp import fully_shard

    path, module = block
    own = [parameter for parameter in module.parameters() if parameter in places]
    for parameter in own:
        remember(*places[parameter], all_fingerprints(parameter))
        parameter.data = parameter.data.contiguous()  # FSDP2 knows no other order of memory
    layers = [layer for layer in module.modules() if is_adapted(layer)]
    for layer in layers:
        exchange(layer, dict.fromkeys(adapted_parameters(layer)))
    ignored = {parameter for parameter in module.parameters() if parameter not in places}
    fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=ignored)
    module.register_forward_hook(_without_views, prepend=True)
    sharded: Any = module
    if all_gather is not None:
        sharded.set_custom_all_gather(all_gather)
    shards = [_in(places[parameter]) for parameter in own]
    sharded.unshard()
    whole = [_in(places[parameter]) for parameter in own]
    sharded.reshard()
    pairs = dict(zip([places[parameter] for parameter in own], zip(shards, whole, strict=True), strict=True))
    for layer in layers:
        exchange(layer, {name: pairs[layer, name] for name in adapted_parameters(layer) if (layer, name) in pairs})
    return ShardedBlock(path, sharded, list(pairs.values()))


def _without_views(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """FSDP2 loses sight of a view that is changed in place, and the backward would read weights that are not there."""
    return output.clone() if isinstance(output, Tensor) and output.requires_grad and output._is_view() else output


def _in(place: Place) -> nn.Parameter:
    module, name = place
    found = module._parameters[name]
    assert found is not None
    return found


def _is_shard(parameter: nn.Parameter) -> bool:
    return type(parameter).__name__ == "DTensor"
