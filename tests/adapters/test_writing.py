"""Writing to what an adapted layer's ``weight`` answers: refused with one line, or right; reading stays as it was."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fusion, prune, spectral_norm, weight_norm
from torch.nn.utils.parametrizations import weight_norm as new_weight_norm

import visionlora as vl
from helpers.cases import LAYERS, LayerCase, perturb, wake
from visionlora.adapters.layer import adapted_layers, adapted_parameters


@pytest.fixture
def model() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5)).eval()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.5)
    return model


X = torch.randn(2, 3, 4, 4)


def read_then(write: Callable[[Tensor], Any]) -> Callable[[nn.Module], Any]:
    return lambda layer: write(layer.weight)


def add_to(layer: nn.Module) -> None:
    layer.weight += 1


def set_data(layer: nn.Module) -> None:
    layer.weight.data = torch.zeros(5, 16)


def set_grad(layer: nn.Module) -> None:
    layer.weight.requires_grad = True


def delete(layer: nn.Module) -> None:
    del layer.weight


def without_grad(write: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    return torch.no_grad()(write)


WRITES: dict[str, Callable[[nn.Module], Any]] = {
    "zero_": read_then(lambda w: w.zero_()),
    "zero_ without gradients": without_grad(read_then(lambda w: w.zero_())),
    "copy_": without_grad(read_then(lambda w: w.copy_(torch.ones(5, 16)))),
    "mul_": without_grad(read_then(lambda w: w.mul_(0.5))),
    "clamp_": without_grad(read_then(lambda w: w.clamp_(0))),
    "data.copy_": read_then(lambda w: w.data.copy_(torch.ones(5, 16))),
    "data.zero_ of detached": read_then(lambda w: w.detach().data.zero_()),
    "data.fill_ of a part": read_then(lambda w: w.data[0].fill_(1)),
    "data.view.zero_": read_then(lambda w: w.data.view(-1)[3:].zero_()),
    "an item": without_grad(read_then(lambda w: w.__setitem__(0, 1.0))),
    "a chunk": without_grad(read_then(lambda w: w.chunk(2)[0].zero_())),
    "transposed": without_grad(read_then(lambda w: w.t().mul_(2))),
    "+=": without_grad(add_to),
    "data =": set_data,
    "requires_grad =": set_grad,
    "requires_grad_": read_then(lambda w: w.requires_grad_(False)),
    "init.zeros_": read_then(nn.init.zeros_),
    "init.normal_": read_then(nn.init.normal_),
    "init.kaiming_uniform_": read_then(nn.init.kaiming_uniform_),
    "init.trunc_normal_": read_then(nn.init.trunc_normal_),
    "init.constant_": read_then(lambda w: nn.init.constant_(w, 1)),
    "init.orthogonal_": read_then(nn.init.orthogonal_),
    "= a parameter": lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(5, 16))),
    "= a tensor": lambda layer: setattr(layer, "weight", torch.zeros(5, 16)),
    "= itself": lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight.detach().clone())),
    "= None": lambda layer: setattr(layer, "weight", None),
    "register_parameter": lambda layer: layer.register_parameter("weight", nn.Parameter(torch.zeros(5, 16))),
    "del": delete,
    "reset_parameters": lambda layer: layer.reset_parameters(),
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "weight_norm": new_weight_norm,
    "spectral_norm": spectral_norm,
}


@pytest.mark.parametrize("write", WRITES)
def test_writing_is_refused_and_changes_nothing(model: nn.Module, write: str) -> None:
    before, expected = copy.deepcopy(model.state_dict()), model(X)
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(vl.InputError, match=r"^weight of an adapted layer can't be .*merge or detach.* first") as error:
        WRITES[write](model[3])
    assert "\n" not in str(error.value)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(X), expected)


def test_the_old_weight_norm_is_refused(model: nn.Module) -> None:
    """It takes the parameter away before it asks, so that the model is lost; the line says why."""
    with pytest.raises(vl.InputError, match="can't be pruned or parametrized.*merge or detach"):
        weight_norm(model[3])


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_every_adapted_parameter_is_guarded(case: LayerCase) -> None:
    model = nn.Sequential(wake(case.make()))
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.5)
    layers = list(adapted_layers(model))
    assert layers
    for _, layer in layers:
        for parameter in adapted_parameters(layer):
            with pytest.raises(vl.InputError, match=f"^{parameter} of an adapted layer can't be assigned"):
                setattr(layer, parameter, nn.Parameter(torch.zeros(2)))
            with pytest.raises(vl.InputError, match="can't be changed in place"), torch.no_grad():
                getattr(layer, parameter).zero_()


def test_disabled_and_merged_the_weight_is_the_layers_own(model: nn.Module) -> None:
    with vl.disabled(model), torch.no_grad():
        model[3].weight.mul_(2)
    vl.merge(model)
    with torch.no_grad():
        nn.init.zeros_(model[3].weight)
    model[3].weight = nn.Parameter(torch.ones(5, 16))
    assert torch.equal(model[3].weight, torch.ones(5, 16))


def test_what_is_read_is_as_good_as_a_plain_tensor(model: nn.Module) -> None:
    layer, w = model[3], model[3].weight
    plain = w.detach().clone()
    plain.zero_()
    assert type(plain) is type(w + 1) is type(w.clone()) is type(F.linear(torch.ones(1, 16), w)) is Tensor
    assert w.shape == (5, 16) and w.requires_grad and not w.is_leaf and isinstance(w, Tensor)
    x = torch.randn(3, 16)
    assert torch.equal(F.linear(x, w, layer.bias), F.linear(x, w.clone(), layer.bias))
    lora = layer.adapters["default"]["weight"].lora_B
    through = w.detach().sum() + w[1:3].square().sum() + w.view(-1)[0] + w.t()[2, 1]
    copied = layer.weight.clone()
    exact = copied[1:3].square().sum() + copied[0, 0] + copied[1, 2]
    torch.testing.assert_close(*(torch.autograd.grad(each, lora)[0] for each in (through, exact)))
    with torch.no_grad():
        buffer = io.BytesIO()
        torch.save(layer.weight, buffer)
        for other in (copy.deepcopy(layer.weight), pickle.loads(pickle.dumps(layer.weight))):
            assert type(other) is Tensor and torch.equal(other, w)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=True), w)
    assert "grad_fn" in repr(w)


def test_a_state_dict_may_be_assigned(model: nn.Module) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    model.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
    assert torch.equal(model(X), other(X))
    with pytest.raises(vl.InputError, match="can't be assigned"):
        model[0].weight = nn.Parameter(torch.zeros(4, 3, 3, 3))


def test_fusing_with_batchnorm_is_right_or_refused(model: nn.Module) -> None:
    conv, batchnorm = model[0], model[1]
    batchnorm.running_mean.normal_(), batchnorm.running_var.uniform_(0.5, 2)
    expected = model(X)
    with pytest.raises(vl.InputError, match="merge or detach"):
        fusion.fuse_conv_bn_eval(conv, batchnorm)
    # As ultralytics' model.fuse() does: a new convolution, made of what is read.
    fused = nn.Conv2d(3, 4, 3).requires_grad_(False)
    gain = batchnorm.weight / torch.sqrt(batchnorm.eps + batchnorm.running_var)
    fused.weight.copy_(torch.mm(torch.diag(gain), conv.weight.clone().view(4, -1)).view(fused.weight.shape))
    fused.bias.copy_(gain * (conv.bias - batchnorm.running_mean) + batchnorm.bias)
    model[0], model[1] = fused, nn.Identity()
    torch.testing.assert_close(model(X), expected, atol=1e-3, rtol=1e-4)


def replicated(module: nn.Module) -> nn.Module:
    """What nn.DataParallel runs: torch.nn.parallel.replicate for one replica, whose broadcast wants a GPU."""
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        setattr(replica, name, None if child is None else replicated(child))
    for name, parameter in module._parameters.items():
        if parameter is None:
            replica._parameters[name] = None
        else:
            setattr(replica, name, parameter * 1)
    for name, buffer in module._buffers.items():
        if buffer is None:
            replica._buffers[name] = None
        else:
            setattr(replica, name, buffer * 1)
    return replica


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
@pytest.mark.parametrize("route", ["auto", "reference"])
def test_replicas_of_data_parallel_compute_and_train_the_same(case: LayerCase, route: str) -> None:
    model = nn.Sequential(wake(case.make())).double()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.5)
    vl.set_route(model, route)
    x = torch.randn(case.shape, dtype=torch.float64)
    factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = model(x)
    exact = torch.autograd.grad(expected.square().sum(), factors)
    found = replicated(model)(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), factors), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_that_goes_to_fewer_bits_keeps_exact_factors(model: nn.Module, dtype: torch.dtype) -> None:
    expected, factors = model(X), {n: p.clone() for n, p in model.named_parameters() if ".lora_" in n}
    model.to(dtype)
    assert all(torch.equal(p, factors[name]) for name, p in model.named_parameters() if ".lora_" in name)
    assert model[3].weight.dtype == model[3]._parameters["weight"].dtype == dtype
    bound = 0.05 * expected.abs().max().item()  # terms cancel, so that an output may be small beside what it sums
    torch.testing.assert_close(model(X.to(dtype)).float(), expected, atol=bound, rtol=0)
    model.float()
    torch.testing.assert_close(model(X), expected, atol=bound, rtol=0)
    model.double()
    assert all(p.dtype == torch.float64 for p in model.parameters())
