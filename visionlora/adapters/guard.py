"""What whoever reads or assigns an adapted layer's weight meets: reading gives a tensor that can't be written to.

``layer.weight`` answers the frozen weight with its updates, a tensor made for this reading. Writing to it would change
nothing, and assigning it would put the updates into the frozen weight, where they would count twice. Both are refused.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from visionlora.errors import InputError

Namespace = dict[str, Any]

_VIEWS = (
    *(
        "detach",
        "view",
        "view_as",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "transpose",
        "permute",
        "t",
        "select",
    ),
    *("narrow", "chunk", "split", "unbind", "swapaxes", "movedim", "diagonal", "__getitem__"),
)
"""Methods whose results share the tensor's memory."""

_DATA: Any = Tensor.data
_REQUIRES_GRAD: Any = Tensor.requires_grad
_LOADING = "_visionlora_loading"
_EXCHANGED = "_visionlora_exchanged"


class AdaptedWeight(Tensor):
    """A frozen weight with its updates, for reading: methods that would write to it are refused.

    What torch's functions make of it are plain tensors, as of an ``nn.Parameter``. Not noticed is writing through a
    function of torch's (``torch.zero_(w)``, ``out=w``) or through numpy.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def data(self) -> Tensor:
        found: Tensor = _guarded(_DATA.__get__(self))
        return found

    @data.setter
    def data(self, _value: Any) -> NoReturn:
        _refuse("changed in place (data)")

    @property
    def requires_grad(self) -> bool:
        answer: bool = _REQUIRES_GRAD.__get__(self)
        return answer

    @requires_grad.setter
    def requires_grad(self, _value: Any) -> NoReturn:
        _refuse("changed in place (requires_grad)")

    def __deepcopy__(self, memo: Any) -> Any:
        return _plain(self).__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).__reduce_ex__(protocol)


def guarded(weight: Tensor) -> Tensor:
    """``weight`` for reading; as it is where torch looks into the reading itself (compiling, tracing, functorch)."""
    if torch.compiler.is_compiling() or type(weight) is not Tensor:
        return weight
    if torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return weight
    return weight.as_subclass(AdaptedWeight)


def exchange(layer: nn.Module, known: dict[str, tuple[nn.Parameter, nn.Parameter] | None]) -> None:
    """Let FSDP2 put its own parameters in the place of the layer's, by name: the shard, and the whole that is gathered.

    With None in the place of these two any is let in, while it makes them.
    """
    vars(layer)[_EXCHANGED] = known


def shard_of(layer: nn.Module, name: str) -> nn.Parameter | None:
    """What is in the parameter's place where that is not the whole of it: a shard has no adapted weight."""
    exchanged = vars(layer).get(_EXCHANGED)
    if exchanged is None or name not in exchanged:
        return None
    known, there = exchanged[name], layer._parameters[name]
    return there if known is None or there is known[0] else None


def _may_be_put(layer: nn.Module, name: str, value: Any) -> bool:
    known = vars(layer).get(_EXCHANGED, {}).get(name, ())
    return known is None or any(value is each for each in known)


def refuse_writes(base: Any, parameters: tuple[str, ...]) -> Namespace:
    """Members for a layer's class that refuse whatever would put another tensor in the place of these parameters."""

    def is_ours(self: nn.Module, name: str) -> bool:
        return name in parameters and _LOADING not in vars(self)

    def set_attribute(self: nn.Module, name: str, value: Any) -> None:
        if not is_ours(self, name):
            base.__setattr__(self, name, value)
        elif "_is_replica" in vars(self) or _may_be_put(self, name, value):
            # nn.DataParallel's copy of the layer on another device, or FSDP2's own parameter.
            self._parameters[name] = value
        else:
            _refuse_assignment(self, name, value)

    def delete_attribute(self: nn.Module, name: str) -> None:
        if is_ours(self, name):
            _refuse("removed or parametrized", name)
        base.__delattr__(self, name)

    def register_parameter(self: nn.Module, name: str, value: Any) -> None:
        if is_ours(self, name):
            _refuse_assignment(self, name, value)
        if name in {f"{each}{end}" for each in parameters for end in ("_orig", "_g", "_v")}:
            _refuse("pruned or parametrized", name.rpartition("_")[0])
        base.register_parameter(self, name, value)

    def _load_from_state_dict(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        # The frozen weight's own new value, which load_state_dict(assign=True) puts in its place.
        vars(self)[_LOADING] = True
        try:
            base._load_from_state_dict(self, *args, **kwargs)
        finally:
            del vars(self)[_LOADING]

    return {
        "__setattr__": set_attribute,
        "__delattr__": delete_attribute,
        "register_parameter": register_parameter,
        "_load_from_state_dict": _load_from_state_dict,
    }


def _refuse_assignment(layer: nn.Module, name: str, value: Any) -> NoReturn:
    if type(value).__name__ == "DTensor":
        raise InputError(
            f"{name} of an adapted {type(layer).__name__} can't be sharded (FSDP2, tensor parallelism): its updates "
            f"would not be; merge the adapters first, or train with DistributedDataParallel, or in a run with "
            f"train.shard_base=true"
        )
    _refuse("assigned", name)


def _refuse(what: str, name: str = "weight") -> NoReturn:
    raise InputError(
        f"{name} of an adapted layer can't be {what}: it is read as the frozen {name} with its updates; "
        f"merge or detach the adapters first, or work on a copy ({name}.detach().clone())"
    )


def _plain(weight: Tensor) -> Tensor:
    return weight.as_subclass(Tensor)


def _guarded(found: Any) -> Any:
    if isinstance(found, tuple):
        return tuple(_guarded(each) for each in found)
    return found.as_subclass(AdaptedWeight)


def _view(name: str) -> Callable[..., Any]:
    method = getattr(Tensor, name)

    def view(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _guarded(method(self, *args, **kwargs))

    return view


def _refused(name: str) -> Callable[..., NoReturn]:
    def refused(_self: Tensor, *_args: Any, **_kwargs: Any) -> NoReturn:
        _refuse(f"changed in place ({name})")

    return refused


def _writes(name: str) -> bool:
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}"))
    return name.endswith("_") and not name.startswith("_")


for _name in _VIEWS:
    setattr(AdaptedWeight, _name, _view(_name))
for _name in dir(Tensor):
    if _writes(_name):
        setattr(AdaptedWeight, _name, _refused(_name))
