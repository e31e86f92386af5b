"""Other libraries that keep adapters, shards or files of a model, and would misread one with ours."""

import warnings
from typing import Any

from torch import nn

from visionlora.adapters.swap import is_swapped, swap, unswap
from visionlora.errors import InputError


def refuse_foreign(model: nn.Module) -> None:
    """Raise InputError if PEFT has adapters on the model, or FSDP2 has sharded it."""
    for path, module in model.named_modules():
        if type(module).__module__.partition(".")[0] == "peft":
            raise InputError(
                f"'{path or type(module).__name__}' is PEFT's {type(module).__name__}, and a model has adapters of one "
                f"kind; take PEFT's off first (model = model.merge_and_unload(), or model.unload())"
            )
    if name := _sharded(model):
        raise InputError(
            f"{name} is a DTensor, and a sharded weight (FSDP2, tensor parallelism) can't be adapted; attach to the "
            f"whole model, and train it with DistributedDataParallel, or in a run with train.shard_base=true, which "
            f"shards the base after that"
        )


def refuse_sharded(model: nn.Module) -> None:
    """Raise InputError if the model's weights are not whole, so that nothing can be merged into them."""
    if name := _sharded(model):
        raise InputError(
            f"{name} is sharded, and nothing can be merged into a part of it; save the adapter, and load it onto the "
            f"whole base (visionlora merge, of a run)"
        )


def _sharded(model: nn.Module) -> str:
    """Name of the first parameter that is sharded, or an empty string."""
    found = (name for name, parameter in model.named_parameters() if type(parameter).__name__ == "DTensor")
    return next(found, "")


def warn_of_saving(model: nn.Module) -> None:
    """Have ``save_pretrained`` of transformers say that what it writes is read as the base."""
    if hasattr(model, "save_pretrained") and not is_swapped(model, _members):
        swap(model, _members)


def stop_warning(model: nn.Module) -> None:
    """The inverse of ``warn_of_saving``."""
    if is_swapped(model, _members):
        unswap(model)


def _members(base: Any) -> dict[str, Any]:
    def save_pretrained(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            "save_pretrained writes the base beside tensors that from_pretrained leaves out: it is read as the base "
            "alone; call visionlora.save_adapter for the adapter, or visionlora.merged(model).save_pretrained",
            stacklevel=2,
        )
        return base.save_pretrained(self, *args, **kwargs)

    return {"save_pretrained": save_pretrained}
