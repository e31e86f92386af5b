"""The same model under each way of training, as a function that does one step."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

import visionlora as vl
from benchmarks.step_tasks import TASKS, Case, Setup
from visionlora.adapters.norm import has_running_stats

METHODS = ("full", "peft", "visionlora", "floor", "floor+head", "head")
ON_REQUEST = ("dora", "lokr", "loha", "lora_fa", "tucker", "ia3", "peft-dora", "peft-lokr", "peft-loha")
"""``visionlora``, or PEFT, with another adapter method."""
LEARNING_RATE = 1e-6
"""So small that what a detector proposes, and so its work, stays the same from step to step in each method."""


def make_step(method: str, setup: Setup) -> Callable[[], None]:
    """Forward, loss, backward and optimizer step (of what trains, if anything does) on one fixed batch of noise."""
    case = make_case(method, setup)
    trained = [parameter for parameter in case.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE) if trained else None
    called = called_model(case, setup)

    def passes() -> None:
        loss(case, called, setup).backward()

    graph = _recorded(passes, case.model) if setup.graph else None

    def step() -> None:
        if graph is None:
            passes()
        else:
            graph.replay()  # It reads the batch that ``passes`` holds, and writes into the gradients that there are.
        if optimizer:
            optimizer.step()
            if graph is None:
                optimizer.zero_grad(set_to_none=True)

    return step


def called_model(case: Case, setup: Setup) -> nn.Module:
    """The case's model, or what compiles it."""
    if setup.compile == "off":
        return case.model
    return torch.compile(case.model, mode=None if setup.compile == "default" else setup.compile)


def _recorded(passes: Callable[[], None], model: nn.Module) -> "torch.cuda.CUDAGraph":
    """Forward and backward as one CUDA graph: what is left of them is the GPU's own time."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            passes()
            model.zero_grad(set_to_none=True)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        passes()
    return graph


def loss(case: Case, called: nn.Module, setup: Setup) -> Tensor:
    """The batch's loss, scalar; ``called`` is the case's model or wraps it."""
    # What is drawn at random is the same in every method and step: which proposals an R-CNN trains on, dropout.
    if not setup.graph:  # while one is recorded, no generator may be seeded
        torch.manual_seed(0)
    kind, cached = torch.device(setup.device).type, not setup.graph
    with torch.autocast(kind, torch.bfloat16, enabled=setup.autocast == "bf16", cache_enabled=cached):
        return case.loss(called)


def make_case(method: str, setup: Setup, batch: int | None = None) -> Case:
    """The task's case with a model that is ready to train; every method gets the same numbers."""
    torch.manual_seed(0)
    case = TASKS[setup.task](setup, batch or setup.batch)
    return replace(case, model=_PREPARE[method](case, setup))


def _full(case: Case, _setup: Setup) -> nn.Module:
    return _freeze_batchnorm(case.model) if case.keep_statistics else case.model.train()


def _visionlora(case: Case, setup: Setup, method: str = "lora") -> nn.Module:
    config = vl.LoRAConfig(rank=setup.rank, exclude=case.unused, unfreeze=case.head, method=method)
    vl.attach(case.model, config)
    vl.set_route(case.model, setup.route)
    vl.set_memory(case.model, setup.memory)
    case.model.train()
    vl.fold_batchnorm(case.model, case.example)
    return case.model


def _peft(case: Case, setup: Setup, method: str = "lora") -> nn.Module:
    """On the same layers, grouped convolutions left out: their factors don't fit in PEFT."""
    from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

    names = [name for name, layer in _adapted(case) if getattr(layer, "groups", 1) == 1]
    # The head's layers, and not the head: PEFT takes every name that ends so, a ``head`` and its ``conv_head`` alike.
    head = [
        name
        for name, module in case.model.named_modules()
        if _is_in(name, case.head) and any(True for _ in module.parameters(recurse=False))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alpha = vl.LoRAConfig().alpha
        common = {"r": setup.rank, "target_modules": names, "modules_to_save": head}
        if method in ("loha", "lokr"):
            config = (LoHaConfig if method == "loha" else LoKrConfig)(**common, alpha=alpha)
        else:
            config = LoraConfig(**common, lora_alpha=alpha, use_dora=method == "dora")
        return _freeze_batchnorm(get_peft_model(case.model, config))


def _floor(case: Case, _setup: Setup) -> nn.Module:
    """Frozen, a detector's new head too; the backward goes down to the first adapted layer's output."""
    _freeze_batchnorm(case.model).requires_grad_(False)
    _, first = _adapted(case)[0]
    first.register_forward_hook(_require_grad)
    return case.model


def _floor_and_head(case: Case, setup: Setup) -> nn.Module:
    """The floor, but the head trains as in every method: what a step would cost if adapting the rest cost nothing.

    A classifier's head is one small layer. A detector's is its pyramid and all that comes after it, whose training
    costs full fine-tuning, PEFT and visionlora the same, and which no adapter could make cheaper.
    """
    model = _floor(case, setup)
    for name in case.head:
        model.get_submodule(name).requires_grad_(True)
    return model


def _head(case: Case, _setup: Setup) -> nn.Module:
    """A linear probe, or a new detector on a frozen backbone: the backward ends where the head begins."""
    model = _freeze_batchnorm(case.model).requires_grad_(False)
    for name in case.head:
        model.get_submodule(name).requires_grad_(True)
    return model


def _require_grad(_layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    # Not the leaf itself, which the next ReLU could not change in place.
    return output.requires_grad_().view_as(output)


def _freeze_batchnorm(model: nn.Module) -> nn.Module:
    """Training mode, in which a detector gives losses, with BatchNorm as in eval mode."""
    for module in model.train().modules():
        if has_running_stats(module):
            module.eval()
    return model


def _adapted(case: Case) -> list[tuple[str, nn.Module]]:
    return [
        (name, layer)
        for name, layer in case.model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not _is_in(name, [*case.head, *case.unused])
    ]


def _is_in(name: str, modules: list[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


_PREPARE = {
    "full": _full,
    "peft": _peft,
    "visionlora": _visionlora,
    "floor": _floor,
    "floor+head": _floor_and_head,
    "head": _head,
}
for _name in ON_REQUEST:
    _of_peft, _, _method = _name.rpartition("-")
    _PREPARE[_name] = partial(_peft if _of_peft else _visionlora, method=_method)
