"""DoRA: PEFT's numbers, and by the fused operations those of autograd on the formula."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from helpers.comparing import agree, gradients
from helpers.dense_oracle import saved_storages
from visionlora.ops import conv, linear

PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 10, bias=False)), (7, 9)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 9, 3), nn.Tanh(), nn.Conv1d(9, 8, 1, bias=False)), (2, 3, 9)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(3, 9, 3, 2), nn.Tanh(), nn.Conv2d(9, 8, 1, bias=False)), (2, 3, 9, 9)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(3, 9, 3), nn.Tanh(), nn.Conv3d(9, 8, 1)), (2, 3, 5, 5, 5)),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("route", ["auto", "factored", "dense", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_peft_gives_the_same_output_and_gradients(name: str, route: str, dtype: torch.dtype) -> None:
    peft = pytest.importorskip("peft")
    make, shape = PLAIN[name]
    base, x = make().to(dtype), torch.randn(shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.LoraConfig(r=3, lora_alpha=7, use_dora=True, target_modules=["0", "2"], init_lora_weights=False)
        theirs = peft.get_peft_model(copy.deepcopy(base), settings)
    vl.attach(base, vl.LoRAConfig(rank=3, alpha=7, method="dora"))
    vl.set_route(base, route)
    pairs = []
    for at in ("0", "2"):
        mine, layer = base.get_submodule(at).adapters["default"]["weight"], theirs.base_model.model.get_submodule(at)
        magnitude = layer.lora_magnitude_vector["default"].weight
        torch.testing.assert_close(magnitude.detach().flatten(), _norms(layer, 7 / 3))
        pairs += [(mine.lora_A, layer.lora_A["default"].weight), (mine.lora_B, layer.lora_B["default"].weight)]
        pairs += [(mine.lora_magnitude, magnitude)]
    with torch.no_grad():
        for own, other in pairs:
            if own.dim() == 1:
                other.mul_(0.5 + torch.rand_like(other))
            own.copy_(other.reshape(own.shape))
    found, expected = base(x), theirs(x)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert off_by(found, expected) < 1e-5
    for own, other in pairs:
        assert off_by(own.grad, other.grad.reshape(own.shape)) < 1e-5


def off_by(found: Tensor, expected: Tensor) -> float:
    """Relative to the norm of what is expected."""
    return float((found - expected).detach().norm() / expected.detach().norm())


def _norms(layer: nn.Module, scale: float) -> Tensor:
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return (layer.base_layer.weight.flatten(1) + scale * B.flatten(1) @ A.flatten(1)).norm(dim=1).detach()


class Block(nn.Module):
    """Outputs that are added to in place, and read twice, before or after what keeps them."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.act, self.read = nn.ReLU(inplace), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y += x
        y = self.act(y)
        z = self.second(y)
        z = self.read(z) + z.sin()
        return self.act(self.third(z)) * 2 + y


CHAINS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "relu": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), (2, 3, 7, 7), 0),
    "relu in place": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(True)), (2, 3, 7, 7), 0),
    "relu6 in place": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.ReLU6(True)), (2, 3, 7, 7), 0),
    "gelu": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.GELU()), (2, 3, 7, 7), 0),
    "linear, gelu": (lambda: nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 4), nn.ReLU(True)), (2, 3, 5), 0),
    "nothing that keeps it": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Conv1d(3, 4, 1)), (2, 3, 5), 2),
    "two activations": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(True), nn.GELU()), (2, 3, 7, 7), 0),
    "unfolded norm": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()), (2, 3, 7, 7), 1),
    "block": (lambda: Block(False), (2, 4, 7, 7), 2),
    "block in place": (lambda: Block(True), (2, 4, 7, 7), 2),
}
"""Model, its input's shape, and for how many layers the output isn't kept by the module after them."""


@pytest.fixture
def through_weight(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Factors' shapes of the layers that needed the gradient of their whole weight."""
    seen: list[torch.Size] = []
    for module in (conv, linear):
        original = module.all_gradients

        def noted(*arguments: object, original: Callable[..., object] = original) -> object:
            seen.append(arguments[2].shape)  # type: ignore[attr-defined]
            return original(*arguments)

        monkeypatch.setattr(module, "all_gradients", noted)
    return seen


@pytest.mark.parametrize("name", CHAINS)
def test_the_magnitudes_gradient_is_exact_whoever_keeps_the_output(name: str, through_weight: list[torch.Size]) -> None:
    make, shape, not_kept = CHAINS[name]
    model, x = make().double(), torch.randn(shape).double()
    vl.attach(model, vl.LoRAConfig(rank=2, method="dora"))
    perturb(model, 0.1)
    reference = vl.set_route(copy.deepcopy(model), "reference")
    agree(gradients(model, x), gradients(reference, x), 1e-10)
    assert len(through_weight) == not_kept


@pytest.mark.parametrize("act", [nn.ReLU(True), nn.ReLU(), nn.Identity(), nn.GELU()], ids=repr)
def test_folded_it_is_the_same(act: nn.Module, through_weight: list[torch.Size]) -> None:
    """One channel's BatchNorm weight is zero, one is tiny: nothing of the convolution is left in its output."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), copy.deepcopy(act)).double()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.copy_(torch.tensor([0.0, 1e-9, -1.0, 0.5, 2.0]))
        norm.bias.normal_()
    vl.attach(model, vl.LoRAConfig(rank=2, method="dora"))
    perturb(model, 0.1)
    x = torch.randn(4, 3, 6, 6).double()
    reference = vl.set_route(copy.deepcopy(model), "reference")
    assert vl.fold_batchnorm(model, x) == ["1"]
    agree(gradients(model, x), gradients(reference, x), 1e-9)
    assert len(through_weight) == isinstance(act, nn.Identity)


def test_a_second_backward_and_a_gradient_of_gradients_are_right() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.Flatten(), nn.Linear(36, 3)).double()
    x = torch.randn(2, 3, 5, 5).double()
    vl.attach(model, vl.LoRAConfig(rank=2, method="dora"))
    perturb(model, 0.1)
    reference = vl.set_route(copy.deepcopy(model), "reference")
    results = []
    for each in (model, reference):
        factors = [p for p in each.parameters() if p.requires_grad]
        loss = each(x).square().sum()
        torch.autograd.grad(loss, factors, retain_graph=True)
        first = torch.autograd.grad(loss, factors, create_graph=True)
        results.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), factors)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_it_keeps_no_more_activations_than_lora() -> None:
    kept = {}
    for method in ("lora", "dora"):
        layers = [
            layer for _ in range(3) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True))
        ]
        model = nn.Sequential(*layers)
        vl.attach(model, vl.LoRAConfig(rank=2, method=method))
        x = torch.randn(4, 8, 16, 16, requires_grad=True)
        assert len(vl.fold_batchnorm(model, x)) == 3
        found = saved_storages(lambda model=model, x=x: model(x), but=[*model.parameters(), *model.buffers()])
        kept[method] = sorted(size for size in found.values() if size >= x.nbytes)
    assert kept["dora"] == kept["lora"] and len(kept["lora"]) == 4


def test_a_row_of_zeros_stays_one() -> None:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    model = nn.Sequential(layer)
    x = torch.randn(5, 4)
    expected = model(x)
    vl.attach(model, vl.LoRAConfig(rank=2, method="dora"))
    assert torch.equal(model(x), expected)
    perturb(model)
    model(x).square().sum().backward()
    assert torch.isfinite(model(x)).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_two_of_them_on_one_layer_are_refused_and_nothing_changes() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    x = torch.randn(2, 4)
    for name, method, targets in (("a", "dora", "all"), ("b", "dora", ["1"]), ("c", "lora", "all")):
        vl.attach(model, vl.LoRAConfig(rank=2, method=method, targets=targets), name=name)
        perturb(model, 0.2)
    before = model(x)
    with pytest.raises(vl.InputError, match=r"adapters \['b', 'a'\] don't add up on '1'; activate one of them"):
        vl.activate(model, ["b", "c", "a"])
    assert torch.equal(model(x), before)
    outputs = []
    for names in (["a", "c"], ["c", "a"]):
        vl.activate(model, names)
        outputs.append(model(x))
    assert torch.equal(*outputs)
    vl.activate(model, ["c"])
    added = model[1].adapters["c"]["weight"].whole_update(model[1]._parameters["weight"])
    vl.activate(model, ["a"])
    alone = model[1].weight
    vl.activate(model, ["a", "c"])
    torch.testing.assert_close(model[1].weight, alone + added)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["linear", "conv"])
def test_beside_a_weight_of_16_bits_it_is_the_formula(name: str, folded: bool) -> None:
    """A new one is the base to the bit; a trained one is off by rounding, and less than the dense weight is."""
    layers: list[nn.Module] = [nn.Linear(64, 32)]
    x = torch.randn(256, 64)
    if name == "conv":
        layers, x = [nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)], torch.randn(16, 16, 6, 6)
    exact = nn.Sequential(*layers).bfloat16().float().eval()
    x = x.bfloat16()
    base = copy.deepcopy(exact).bfloat16()
    expected = base(x)
    model = copy.deepcopy(exact)
    vl.attach(model, vl.LoRAConfig(rank=2, method="dora"))
    if folded and name == "conv":
        vl.fold_batchnorm(model, x.float())
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None and not key.startswith("lora_"):
                parameter.data = parameter.data.bfloat16()
        for key, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[key] = buffer.bfloat16()
    if not folded:
        assert torch.equal(model(x), expected)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() == 1:
                parameter.mul_(1 + 0.003 * torch.randn_like(parameter))
            elif parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    wide = copy.deepcopy(model).float()
    output = model(x)
    truth = wide(x.float())
    assert output.dtype == torch.bfloat16
    assert off_by(output.float(), truth) < 0.01
    output.float().square().sum().backward()
    truth.square().sum().backward()
    for found, wanted in zip(model.parameters(), wide.parameters(), strict=True):
        if found.requires_grad:
            assert torch.cosine_similarity(found.grad.flatten(), wanted.grad.flatten(), dim=0) > 0.98
