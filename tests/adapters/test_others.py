"""Models of other libraries' making: right, or one line that says what they are."""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from visionlora.adapters.header import read_header


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))


X = torch.randn(2, 3, 4, 4)


def refusal(model: nn.Module, **config: Any) -> str:
    with pytest.raises(vl.InputError) as error:
        vl.attach(model, vl.LoRAConfig(**config))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_with_adapters_of_peft_is_refused(whole: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = net()
    path = tmp_path / "a.safetensors"
    vl.attach(base, vl.LoRAConfig(targets=["5"]))
    vl.save_adapter(base, path)
    vl.detach(base)
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["3"]))
    # Its layers are in the model that was given to it, as well.
    model = model if whole else base
    assert "is PEFT's" in refusal(model) and "merge_and_unload" in refusal(model, targets=["5"])
    with pytest.raises(vl.InputError, match="is PEFT's"):
        vl.load_adapter(model, path)


class Int8Tensor(Tensor):
    """As torchao's: a floating-point tensor by its own account, and none that numbers can be added to."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Int8Tensor":
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=torch.float32, device=inner.device)
        made.inner = inner
        return made

    def __init__(self, inner: Tensor) -> None:
        pass

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].inner)
        if function in (torch.ops.aten.t.default,):
            return cls(args[0].inner.t())
        plain = [a.inner.float() if isinstance(a, cls) else a for a in args]
        return function(*plain, **(kwargs or {}))


class Params4bit(nn.Parameter):
    """As bitsandbytes' before it goes to the GPU."""


def quantised(kind: str) -> nn.Module:
    model = net().requires_grad_(False)
    if kind == "Int8Tensor":
        model[3].weight = nn.Parameter(Int8Tensor(torch.randint(-9, 9, (8, 16), dtype=torch.int8)), requires_grad=False)
    else:
        model[3]._parameters["weight"] = Params4bit(model[3].weight.detach(), requires_grad=False)
    assert type(model[3].weight).__name__ == kind
    return model


@pytest.mark.parametrize("kind", ["Int8Tensor", "Params4bit"])
def test_quantised_weights_are_refused_by_the_name_of_their_class(kind: str, tmp_path: Path) -> None:
    model = quantised(kind)
    assert f"its weight is of class {kind}" in refusal(model, targets=["3"])
    expected = model(X)
    report = vl.attach(model, vl.LoRAConfig(rank=2))
    assert [layer.path for layer in report.adapted] == ["0", "5"]
    assert f"left out, its weight is of class {kind}" in str(report)
    assert torch.equal(model(X), expected)
    perturb(model, 0.5)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    fresh = quantised(kind)
    fresh.load_state_dict({k: v for k, v in model.state_dict().items() if ".adapters." not in k}, assign=True)
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh(X), model(X))


def test_a_model_that_torchao_has_quantised_is_refused() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = net()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert "its weight is of class " in refusal(model, targets=["3"])
    other = net()
    vl.attach(other)
    with pytest.raises(vl.InputError, match="weight of an adapted layer can't be"):
        quantization.quantize_(other, quantization.Int8WeightOnlyConfig())


def test_layers_of_bitsandbytes_are_refused() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    for layer in (bitsandbytes.nn.Linear4bit(8, 4), bitsandbytes.nn.Linear8bitLt(8, 4, has_fp16_weights=False)):
        assert f"its weight is a {type(layer.weight).__name__}" in refusal(nn.Sequential(layer))


@pytest.fixture
def _group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
@pytest.mark.usefixtures("_group")
def test_fsdp2_is_refused_before_and_after() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    sharded = net()
    fully_shard(sharded, mesh=mesh)
    assert "0.weight is a DTensor" in refusal(sharded) and "DistributedDataParallel" in refusal(sharded, targets=["3"])
    assert "in a run with train.shard_base=true" in refusal(sharded)
    model = net()
    vl.attach(model)
    for part in (model[3], model):
        with pytest.raises(
            vl.InputError, match=r"weight of an adapted \w+ can't be sharded .*merge the adapters first"
        ):
            fully_shard(part, mesh=mesh)


@pytest.mark.parametrize("part", ["whole", "inner"])
def test_names_are_those_without_torch_compile(part: str, tmp_path: Path) -> None:
    torch.compiler.reset()
    base = nn.Sequential(net(), nn.BatchNorm1d(2)).eval()
    model = copy.deepcopy(base)
    if part == "whole":
        wrapped = torch.compile(model, backend="eager")
    else:
        model[0] = torch.compile(model[0], backend="eager")
        wrapped = model
    expected = wrapped(X)
    config = vl.LoRAConfig(rank=2, targets=["0.0", "_orig_mod.0.3", "0.5"], unfreeze=["1"])
    if part == "inner":
        config = vl.LoRAConfig(rank=2, targets=["0.0", "0._orig_mod.3", "0.5"], unfreeze=["1"])
    report = vl.attach(wrapped, config)
    assert [layer.path for layer in report.adapted] == ["0.0", "0.3", "0.5"]
    assert [name for name, _ in report.unfrozen] == ["1"]
    assert torch.equal(wrapped(X), expected)
    perturb(model, 0.5)
    assert not torch.equal(wrapped(X), expected)
    assert vl.verify(wrapped, X).without_effect == []
    vl.fold_batchnorm(wrapped, X)
    # Either is the model that the adapter was attached to.
    for index, each in enumerate((wrapped, model)):
        assert vl.adapter_names(each) == ["default"]
        vl.save_adapter(each, tmp_path / f"{index}.safetensors")
        fresh = copy.deepcopy(base)
        vl.load_adapter(fresh, tmp_path / f"{index}.safetensors")
        assert torch.equal(fresh(X), model(X))
        again = torch.compile(copy.deepcopy(base), backend="eager")
        vl.load_adapter(again, tmp_path / f"{index}.safetensors")
        torch.testing.assert_close(again(X), model(X))
    header = read_header(tmp_path / "0.safetensors")
    assert "_orig_mod" not in str(header) or "_orig_mod" in str(config.targets)
    assert sorted(header.layers) == ["0.0.weight", "0.3.weight", "0.5.weight"]
    with vl.disabled(wrapped):
        assert torch.equal(wrapped(X), expected)
    adapted = wrapped(X)
    vl.merge(wrapped)
    torch.testing.assert_close(wrapped(X), adapted)
    torch.compiler.reset()


def test_a_file_whose_names_have_the_wrapper_is_read_without(tmp_path: Path) -> None:
    base = net()
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["5"]))
    perturb(model, 0.5)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        fields = file.metadata()
        tensors = {f"_orig_mod.{key}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key in ("layers", "base"):
        fields[key] = fields[key].replace('{"', '{"_orig_mod.').replace(', "', ', "_orig_mod.')
        fields[key] = fields[key].replace("_orig_mod.rank", "rank").replace("_orig_mod.alpha", "alpha")
        fields[key] = fields[key].replace("_orig_mod.parts", "parts")
    fields["unfrozen"] = '["_orig_mod.5"]'
    del fields["rounded"], fields["sha256"]
    save_file(tensors, tmp_path / "b.safetensors", fields)
    vl.load_adapter(base, tmp_path / "b.safetensors")
    assert torch.equal(base(X), model(X))


def test_save_pretrained_says_that_it_writes_the_base(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    model = transformers.ViTForImageClassification(config).eval()
    kind, x = type(model), torch.randn(1, 3, 16, 16)
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.5)
    assert isinstance(model, kind) and copy.deepcopy(model)(x).logits.equal(model(x).logits)
    with pytest.warns(UserWarning, match=r"save_pretrained writes the base .*visionlora.merged\(model\)"):
        model.save_pretrained(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vl.merged(model).save_pretrained(tmp_path / "b")
    assert torch.equal(kind.from_pretrained(tmp_path / "b").eval()(x).logits, model(x).logits)
    vl.merge(model)
    assert type(model) is kind
