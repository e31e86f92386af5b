"""LoRA for vision models: attach, train, save, load, merge."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from visionlora.version import __version__ as __version__

if TYPE_CHECKING:
    from visionlora.adapters.attached import adapter_names
    from visionlora.adapters.combining import combine
    from visionlora.adapters.config import LoRAConfig
    from visionlora.adapters.eva import start_from_data
    from visionlora.adapters.fleet.fleet import Fleet
    from visionlora.adapters.folding import fold_batchnorm, unfold_batchnorm
    from visionlora.adapters.header import read_header
    from visionlora.adapters.loading import load_adapter
    from visionlora.adapters.model import (
        activate,
        attach,
        detach,
        disabled,
        merge,
        merged,
        set_memory,
        set_route,
    )
    from visionlora.adapters.padding import pad_ranks
    from visionlora.adapters.peft.folder import load_peft, save_peft
    from visionlora.adapters.recalibration import recalibrate
    from visionlora.adapters.report import Report
    from visionlora.adapters.saving import save_adapter
    from visionlora.adapters.spread import spread_ranks
    from visionlora.adapters.verify import verify
    from visionlora.errors import InputError
    from visionlora.exports.export import export
    from visionlora.models.extended import Extended
    from visionlora.tasks.extending import extend
    from visionlora.tasks.trained import load_trained

_HOMES = {
    "Extended": "visionlora.models.extended",
    "Fleet": "visionlora.adapters.fleet.fleet",
    "InputError": "visionlora.errors",
    "LoRAConfig": "visionlora.adapters.config",
    "Report": "visionlora.adapters.report",
    "activate": "visionlora.adapters.model",
    "adapter_names": "visionlora.adapters.attached",
    "attach": "visionlora.adapters.model",
    "combine": "visionlora.adapters.combining",
    "detach": "visionlora.adapters.model",
    "disabled": "visionlora.adapters.model",
    "export": "visionlora.exports.export",
    "extend": "visionlora.tasks.extending",
    "fold_batchnorm": "visionlora.adapters.folding",
    "load_adapter": "visionlora.adapters.loading",
    "load_peft": "visionlora.adapters.peft.folder",
    "load_trained": "visionlora.tasks.trained",
    "merge": "visionlora.adapters.model",
    "merged": "visionlora.adapters.model",
    "pad_ranks": "visionlora.adapters.padding",
    "read_header": "visionlora.adapters.header",
    "recalibrate": "visionlora.adapters.recalibration",
    "save_adapter": "visionlora.adapters.saving",
    "save_peft": "visionlora.adapters.peft.folder",
    "set_memory": "visionlora.adapters.model",
    "set_route": "visionlora.adapters.model",
    "spread_ranks": "visionlora.adapters.spread",
    "start_from_data": "visionlora.adapters.eva",
    "unfold_batchnorm": "visionlora.adapters.folding",
    "verify": "visionlora.adapters.verify",
}

__all__ = [
    "Extended",
    "Fleet",
    "InputError",
    "LoRAConfig",
    "Report",
    "activate",
    "adapter_names",
    "attach",
    "combine",
    "detach",
    "disabled",
    "export",
    "extend",
    "fold_batchnorm",
    "load_adapter",
    "load_peft",
    "load_trained",
    "merge",
    "merged",
    "pad_ranks",
    "read_header",
    "recalibrate",
    "save_adapter",
    "save_peft",
    "set_memory",
    "set_route",
    "spread_ranks",
    "start_from_data",
    "unfold_batchnorm",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import, so ``visionlora --help`` must not pay for it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'visionlora' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
