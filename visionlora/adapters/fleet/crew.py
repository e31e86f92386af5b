"""The cameras' adapters on a model: whose tensors each of its modules shows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor, nn

from visionlora.adapters import state
from visionlora.adapters.adaptable import base_modules
from visionlora.adapters.folded import folded_into
from visionlora.adapters.layer import LayerAdapters, adapted_layers, adapted_parameters, adapters_of
from visionlora.adapters.norm import freeze, has_running_stats


class Unforeseen(RuntimeError):
    """A mixed batch went another way through the model than the one that was watched."""


class _Unreadable(dict[str, Any]):
    """In place of what active adapters do, where no camera's turn is: reading the weight would be wrong."""

    def get(self, key: str, default: Any = None) -> NoReturn:
        del key, default
        raise Unforeseen("an adapted weight was read where no single camera's is meant")


_UNREADABLE = _Unreadable()


@dataclass
class Crew:
    """What cameras have on a model.

    Attributes:
        layers: adapted layers' adapters, and for each camera what they then do.
        names: module with tensors of cameras -> its name in the model.
        counts: camera -> (module, attribute) -> number of classes, where a head is of another size than the base's;
            the base's own are under ``state.BASE``.
    """

    layers: dict[nn.Module, tuple[LayerAdapters, dict[str, Any]]] = field(default_factory=dict)
    names: dict[nn.Module, str] = field(default_factory=dict)
    counts: dict[str, dict[tuple[nn.Module, str], int]] = field(default_factory=dict)

    def show(self, camera: str, modules: Iterable[nn.Module] | None = None) -> None:
        """Have these modules, or all, show the camera's tensors; ``state.BASE`` shows the base's."""
        for module in self.names if modules is None else modules:
            if (held := self.layers.get(module)) is not None:
                adapters, lives = held
                adapters.live = lives.get(camera, {})
                adapters.active = {camera: 1.0} if camera in lives else {}
            if (owned := state.owned_of(module)) is not None:
                state.show(module, camera if camera in owned.names else state.BASE)
        if modules is None:
            for (module, attribute), value in (self.counts.get(state.BASE, {}) | self.counts.get(camera, {})).items():
                setattr(module, attribute, value)

    def is_folded(self) -> bool:
        """Whether a BatchNorm is folded into one of the layers, by which cameras would not be told apart."""
        return any(folded_into(layer) is not None for layer in self.layers)

    def hide(self, modules: Iterable[nn.Module] | None = None) -> None:
        """Have whoever reads an adapted weight of these layers, or all, fail."""
        for module in self.names if modules is None else modules:
            if (held := self.layers.get(module)) is not None:
                held[0].live = _UNREADABLE

    def tensors(self) -> dict[nn.Module, list[Tensor]]:
        """Module -> its tensors that are another camera by camera, as they stand in the model."""
        found: dict[nn.Module, list[Tensor]] = {}
        for module in self.names:
            own = state.direct_tensors(module)
            wanted = set(adapted_parameters(module)) if module in self.layers else set()
            if (owned := state.owned_of(module)) is not None:
                wanted |= {name for names in owned.names.values() for name in names}
            found[module] = [own[name] for name in wanted]
        return found


def muster(model: nn.Module, counts: dict[str, dict[tuple[nn.Module, str], int]]) -> Crew:
    """All adapters on the model, each for a camera; nothing trains and BatchNorm is held from now on."""
    crew = Crew(counts=counts)
    for path, layer in adapted_layers(model):
        adapters = adapters_of(layer)
        lives = {}
        for name in adapters:
            adapters.activate({name: 1.0})
            lives[name] = adapters.live
        crew.layers[layer] = (adapters, lives)
        crew.names[layer] = path
    crew.names |= {module: path for path, module, _ in state.owned_modules(model)}
    for _, module in base_modules(model):
        if has_running_stats(module):
            freeze(module)
    model.requires_grad_(False)
    return crew


def outputs_of(crew: Crew, cameras: Iterable[str]) -> dict[str, int]:
    """Camera -> rows of its head where cameras' heads differ in them; empty if a camera's heads differ in it."""
    found: dict[str, int] = {}
    names = list(cameras)
    for module in crew.names:
        if state.owned_of(module) is None:
            continue
        own = [{**state.base_tensors(module), **state.values_of(module, camera)} for camera in names]
        for name in own[0]:
            rows = [len(values[name]) if values[name].dim() else 0 for values in own]
            if len(set(rows)) == 1:
                continue
            if any(found.setdefault(camera, count) != count for camera, count in zip(names, rows, strict=True)):
                return {}
    return found
