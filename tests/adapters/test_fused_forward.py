"""Adapted layers through the fused operations: the numbers of autograd on the dense weight, and nothing else."""

import copy
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from timm.layers import activations as timm_activations
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

import visionlora as vl
from helpers.cases import LAYERS, MODELS, LayerCase, ModelCase, perturb, wake
from helpers.comparing import agree, gradients, trained
from visionlora.adapters import activations, forward
from visionlora.adapters.layer import adapted_layers

ROUTES = ("auto", "factored", "dense")

FUSED = {
    *("linear", "linear_3d_input", "linear_no_bias_3d_input", "conv1d", "conv1d_dilated", "conv2d"),
    "conv2d_1x1_stride",
    *("conv2d_rectangular", "conv2d_grouped", "conv2d_depthwise", "conv2d_reflect", "conv2d_circular"),
    *("conv2d_replicate", "conv2d_same_string", "conv3d", "timm_conv2d_same"),
}
"""Layers of the table whose forward is replaced; the others keep theirs and read the dense weight."""


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each fused operation ran."""
    ran: Counter[str] = Counter()
    for name in ("linear", "conv", "linear_branch", "conv_branch"):
        original = getattr(forward, name)

        def spy(*args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Tensor:
            ran[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(forward, name, spy)
    return ran


def made(case: LayerCase | ModelCase, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """The case's model, frozen, and an input."""
    model = wake(case.make())
    # A layer on its own is wrapped, for the root of a model has no name.
    model = nn.Sequential(model) if isinstance(case, LayerCase) else model
    shape = case.shape if isinstance(case, LayerCase) else (2, 3, case.size, case.size)
    return model.to(dtype).eval().requires_grad_(False), torch.randn(shape, dtype=dtype)


def adapted(model: nn.Module, scale: float = 0.1, **config: Any) -> nn.Module:
    vl.attach(model, vl.LoRAConfig(**{"rank": 2, **config}))
    perturb(model, scale)
    return model


def by_route(model: nn.Module, x: Tensor, tolerance: float = 1e-9) -> None:
    """Every route gives what autograd does on the dense weight."""
    vl.set_route(model, "reference")
    expected = gradients(model, x)
    assert all(value.norm() > 0 for value in expected.values())
    for route in ROUTES:
        vl.set_route(model, route)
        agree(gradients(model, x), expected, tolerance)


@pytest.mark.parametrize("case", [*LAYERS, *MODELS], ids=lambda case: case.name)
def test_every_route_gives_what_autograd_does_on_the_dense_weight(
    case: LayerCase | ModelCase, fused: Counter[str]
) -> None:
    model, x = made(case)
    adapted(model)
    # A whole network multiplies the last bits, which differ by processor: LeViT's input gradient ten millionfold.
    by_route(model, x, tolerance=1e-9 if isinstance(case, LayerCase) else 1e-6)
    if isinstance(case, LayerCase):
        assert sum(fused.values()) == (len(ROUTES) if case.name in FUSED else 0)
    else:
        assert fused["conv"] + fused["linear"] >= 3 * len(ROUTES)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_every_route_is_as_exact_in_float32(case: LayerCase) -> None:
    model, x = made(case, torch.float32)
    by_route(adapted(model), x, tolerance=1e-5)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_two_active_adapters_add_up_on_every_route(case: LayerCase, fused: Counter[str]) -> None:
    model, x = made(case)
    for name, rank in (("one", 2), ("two", 3)):
        vl.attach(model, vl.LoRAConfig(rank=rank, method="rslora"), name=name)
    perturb(model, 0.1)
    alone = []
    for names in (["one"], ["two"], ["two", "one"]):
        vl.activate(model, names)
        by_route(model, x)
        alone.append(gradients(model, x)["output 0"])
    assert not torch.allclose(alone[0], alone[2], rtol=1e-3) and not torch.allclose(alone[1], alone[2], rtol=1e-3)
    assert bool(fused) == (case.name in FUSED)


@pytest.mark.parametrize("parts", ["q", "v", "q,v", "k"])
def test_parts_of_a_fused_projection(parts: str, fused: Counter[str]) -> None:
    vit = next(case for case in MODELS if case.name == "timm_vit_tiny_patch16_224")
    model, x = made(vit)
    adapted(model, targets=[f"attn.qkv:{parts}"])
    by_route(model, x)
    assert fused == {"linear": 2 * len(ROUTES)}
    rows = model.blocks[0].attn.qkv.adapters["default"]["weight"].rows
    change = model.blocks[0].attn.qkv.weight - model.blocks[0].attn.qkv._parameters["weight"]
    assert sorted(change.abs().sum(1).nonzero().flatten().tolist()) == rows.tolist()


READ_THE_WEIGHT = ["timm_beit_base_patch16_224", "timm_eva02_tiny_patch14_224", "timm_swinv2_tiny_window8_256"]


@pytest.mark.parametrize("name", READ_THE_WEIGHT)
def test_models_that_read_a_weight_themselves_get_the_adapted_one(name: str, fused: Counter[str]) -> None:
    """Their qkv is ``F.linear(x, self.qkv.weight, bias)``; the layer's forward is never called."""
    model, x = made(next(case for case in MODELS if case.name == name))
    adapted(model, targets=["attn.qkv"])
    by_route(model, x)
    torch.testing.assert_close(model(x), vl.merged(model)(x))
    assert not fused


LINEAR, CONV = LAYERS[0], LAYERS[4]


@pytest.mark.parametrize("case", [case for case in LAYERS if case.name in FUSED], ids=lambda case: case.name)
def test_the_graph_has_one_node_for_the_layer(case: LayerCase) -> None:
    model, x = made(case)
    node = adapted(model)(x).grad_fn
    assert type(node).__name__ in ("_LinearBackward", "_ConvBackward")
    vl.set_route(model, "reference")
    assert type(node) is not type(model(x).grad_fn)


@pytest.mark.parametrize("case", [*LAYERS, MODELS[0], MODELS[13]], ids=lambda case: case.name)
def test_where_no_gradient_is_asked_for_the_dense_weight_is_used(
    case: LayerCase | ModelCase, fused: Counter[str]
) -> None:
    model, x = made(case)
    base = model(x)
    adapted(model)
    expected = vl.merged(model)(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(model(x), expected)
    vl.activate(model, [])
    assert torch.equal(model(x), base) and not model(x).requires_grad
    with vl.disabled(model):
        assert torch.equal(model(x), base)
    assert not fused
    vl.activate(model, "default")
    assert torch.allclose(model(x), expected, rtol=1e-9, atol=1e-12) and model(x).requires_grad


def test_an_input_that_requires_no_gradient_still_trains_the_factors(fused: Counter[str]) -> None:
    for case in (LINEAR, CONV):
        model, x = made(case)
        adapted(model)
        model(x).square().sum().backward()
        assert all(p.grad.norm() > 0 for p in model.parameters() if p.requires_grad)
    assert fused == {"linear": 1, "conv": 1}


def test_frozen_factors_pass_the_gradient_on() -> None:
    for case in (LINEAR, CONV):
        model, x = made(case)
        adapted(model).requires_grad_(False)
        expected = torch.autograd.grad(vl.merged(model)(x.requires_grad_()).sum(), x)
        for route in ROUTES:
            vl.set_route(model, route)
            torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x), expected)


class Small(nn.Module):
    """A convolution, an activation of each kind, and a linear layer."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), act
        self.depthwise, self.relu6 = nn.Conv2d(4, 4, 5, groups=4, padding=2), nn.ReLU6(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        return self.head(self.relu6(self.depthwise(x)).mean((2, 3)))


ACTS = {"GELU": nn.GELU, "SiLU in place": lambda: nn.SiLU(inplace=True), "timm": timm_activations.QuickGELU}


@pytest.fixture(params=ACTS)
def small(request: pytest.FixtureRequest) -> nn.Module:
    return adapted(Small(ACTS[request.param]()).double().eval(), scale=0.3)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 7, 7, dtype=torch.float64)


def loss_of(model: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    return lambda parameters, x: functional_call(model, parameters, (x[None],)).square().sum()


@pytest.mark.parametrize("folded", [False, True])
def test_functorch_gets_right_gradients_of_each_sample(
    small: nn.Module, images: Tensor, folded: bool, fused: Counter[str]
) -> None:
    if folded:
        assert vl.fold_batchnorm(small, images) == ["norm"]
    factors = trained(small)
    parameters = {name: p.detach() for name, p in factors.items()}
    each = vmap(grad(loss_of(small)), (None, 0))(parameters, images)
    assert not fused
    for index in range(len(images)):
        expected = torch.autograd.grad(small(images[index : index + 1]).square().sum(), list(factors.values()))
        for name, value in zip(factors, expected, strict=True):
            torch.testing.assert_close(each[name][index], value)
    assert fused


def test_forward_mode_derivatives(small: nn.Module, images: Tensor) -> None:
    parameters = {name: p.detach() for name, p in trained(small).items()}
    directions = {name: torch.randn_like(p) for name, p in parameters.items()}
    _, found = jvp(lambda p: loss_of(small)(p, images[0]), (parameters,), (directions,))
    gradient = grad(loss_of(small))(parameters, images[0])
    torch.testing.assert_close(found, sum((gradient[name] * directions[name]).sum() for name in parameters))


def test_second_derivatives_of_a_model(small: nn.Module, images: Tensor) -> None:
    """A gradient penalty, through recalled inputs and clamps as well."""
    results = []
    for route in ("reference", *ROUTES):
        vl.set_route(small, route)
        x = images.detach().requires_grad_()
        factors = list(trained(small).values())
        first = torch.autograd.grad(small(x).square().sum(), [x, *factors], create_graph=True)
        results.append(torch.autograd.grad(sum(each.square().sum() for each in first), [x, *factors]))
    for found in results[1:]:
        torch.testing.assert_close(found, results[0])


def test_a_traced_model_follows_its_factors_no_more_but_is_right(small: nn.Module, images: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(small, images[:1])
    torch.testing.assert_close(traced(images), small(images))


def test_fx_traces_a_model_with_timms_activations(images: Tensor) -> None:
    acts = (timm_activations.GELU, timm_activations.Swish, timm_activations.HardSwish)
    model = nn.Sequential(nn.Conv2d(3, 3, 3), *(act() for act in acts), nn.Conv2d(3, 3, 3, stride=2)).double()
    traced = torch.fx.symbolic_trace(adapted(model).eval())
    torch.testing.assert_close(traced(images), model(images))


def fused_nodes(module: torch.fx.GraphModule) -> int:
    return sum("autograd_function_apply" in str(node.target) for node in module.graph.nodes)


COMPILED = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 3)), (4, 8), 2),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.SiLU(True), nn.Conv2d(6, 6, 3, groups=6)),
        (2, 3, 9, 9),
        2,
    ),
    "vit": (next(case for case in MODELS if case.name == "timm_vit_tiny_patch16_224").make, (2, 3, 32, 32), 10),
    "resnet": (next(case for case in MODELS if case.name == "timm_test_resnet").make, (2, 3, 64, 64), 10),
}


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "lora") for name in COMPILED), *product(("linear", "conv"), ("dora", "lokr", "lora_fa"))],
)
@pytest.mark.filterwarnings("ignore")
def test_compiled_training_without_a_break_equals_eager(name: str, method: str) -> None:
    make, shape, at_least = COMPILED[name]
    torch.compiler.reset()
    model, x = adapted(make().double(), method=method), torch.randn(shape, dtype=torch.float64)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    for folded in {"conv": (False, True), "resnet": (True,)}.get(name, (False,)):
        if folded:
            assert vl.fold_batchnorm(model, x)
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        agree(gradients(model, x, compiled), gradients(model, x), 1e-9)
        assert fused_nodes(graphs[-1]) >= at_least * (method != "lokr")  # which has no factors to fuse
    torch.compiler.reset()


BAD_INPUTS = {
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "whole numbers": lambda x: x.long(),
    "complex": lambda x: x.to(torch.complex64),
    "too few channels": lambda x: x.movedim(1, -1)[..., :3].movedim(-1, 1),
    "too few dimensions": lambda x: x.flatten(),
}


@pytest.mark.parametrize("bad", BAD_INPUTS)
@pytest.mark.parametrize("case", [LINEAR, CONV, LAYERS[2]], ids=lambda case: case.name)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_bad_input_gets_the_error_that_the_plain_layer_gives(bad: str, case: LayerCase, autocast: bool) -> None:
    plain, x = made(case, torch.float32)
    model, x = adapted(copy.deepcopy(plain)), BAD_INPUTS[bad](x)
    answers = []
    for each in (plain, *(vl.set_route(copy.deepcopy(model), route) for route in ROUTES)):
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                answers.append(each(x).dtype)
        except Exception as error:
            answers.append((type(error), str(error)))
    assert answers[1:] == answers[:1] * len(ROUTES)


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d", "conv3d", "timm_conv2d_same"])
def test_a_sample_without_a_batch_is_taken_where_the_plain_layer_takes_it(name: str) -> None:
    case = next(case for case in LAYERS if case.name == name)
    plain, x = made(case)
    model, sample = adapted(plain), x[0]
    try:
        expected = vl.merged(model)(sample)
    except Exception as error:
        with pytest.raises(type(error)):
            model(sample)
        return
    for route in ROUTES:
        torch.testing.assert_close(vl.set_route(model, route)(sample), expected)


@pytest.mark.parametrize("case", [LINEAR, CONV], ids=lambda case: case.name)
def test_an_empty_batch_passes(case: LayerCase) -> None:
    """Detectors run their heads on no box at all now and then."""
    model, x = made(case)
    adapted(model)
    for route in ("reference", *ROUTES):
        vl.set_route(model, route)
        empty = x[:0].requires_grad_()
        output = model(empty)
        assert output.shape == (0, *model(x).shape[1:])
        model.zero_grad()
        output.sum().backward()
        assert empty.grad.shape == empty.shape and all(not p.grad.any() for p in trained(model).values())


@pytest.mark.parametrize("case", [LINEAR, CONV], ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_its_type_and_float32_gradients_on_every_route(case: LayerCase, dtype: torch.dtype) -> None:
    model, x = made(case, torch.float32)
    exact = gradients(adapted(model), x)
    for route in ("reference", *ROUTES):
        vl.set_route(model, route)
        with torch.autocast("cpu", dtype):
            found = gradients(model, x)
        assert found.pop("output 0").dtype == dtype
        for name, value in found.items():
            assert value.dtype == torch.float32
            assert F.cosine_similarity(value.flatten(), exact[name].flatten(), dim=0) > 0.99, name


@pytest.mark.parametrize("case", [LINEAR, CONV], ids=lambda case: case.name)
def test_hooks_run_and_may_change_what_passes(case: LayerCase, fused: Counter[str]) -> None:
    results = []
    for route in ("reference", *ROUTES):
        torch.manual_seed(0)
        model, x = made(case)
        vl.set_route(adapted(model), route)
        calls = []
        model[0].register_forward_pre_hook(lambda _m, inputs: (inputs[0] * 2,))
        model[0].register_forward_hook(lambda _m, _i, output: output * 3)
        model[0].register_full_backward_hook(lambda _m, _i, g, calls=calls: calls.append(g[0].clone()))
        results.append(gradients(model, x))
        assert len(calls) == 1
        agree(results[-1], results[0], 1e-9)
    assert sum(fused.values()) == len(ROUTES)


def test_a_subclass_keeps_its_own_forward(fused: Counter[str]) -> None:
    """Only classes whose forward is known get another."""

    class Doubling(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    model = nn.Sequential(Doubling(8, 6)).double()
    x = torch.randn(2, 8, dtype=torch.float64)
    base = model(x)
    vl.attach(model, vl.LoRAConfig(rank=2))
    torch.testing.assert_close(model(x), base)
    perturb(model)
    torch.testing.assert_close(model(x), vl.merged(model)(x))
    assert not fused


def test_a_weight_that_is_made_trainable_gets_its_gradient(fused: Counter[str]) -> None:
    """By hand, after the attach: the fused operation gives frozen weights no gradient, so it steps aside."""
    for case in (LINEAR, CONV):
        model, x = made(case)
        adapted(model)
        model[0]._parameters["weight"].requires_grad_()
        model(x).sum().backward()
        assert model[0]._parameters["weight"].grad.norm() > 0
    assert not fused


def test_a_trainable_bias_gets_its_gradient() -> None:
    for case in (LINEAR, CONV):
        model, x = made(case)
        adapted(model)
        model[0].bias.requires_grad_()
        by_route(model, x)


@pytest.mark.parametrize("route", ["refrence", "", "DENSE", "fast"])
def test_an_unknown_route_is_refused(route: str) -> None:
    model = adapted(nn.Sequential(nn.Linear(8, 6)))
    vl.set_route(model, "dense")
    with pytest.raises(vl.InputError) as error:
        vl.set_route(model, route)
    assert str(error.value).startswith(f"no route '{route}'") and "\n" not in str(error.value)
    assert "auto, factored, dense, reference" in str(error.value)
    if route == "refrence":
        assert "(did you mean 'reference'?)" in str(error.value)
    assert model[0].adapters.route == "dense"


def test_the_route_is_kept_by_copies_and_by_a_second_adapter() -> None:
    model = adapted(nn.Sequential(nn.Linear(8, 6), nn.Conv2d(3, 4, 3)))
    assert vl.set_route(model, "dense") is model
    vl.attach(model, vl.LoRAConfig(rank=2), name="second")
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [layer.adapters.route for _, layer in adapted_layers(each)] == ["dense", "dense"]


def activation_classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules() if ".adapters" not in type(module).__module__]


def test_activations_get_their_classes_and_ways_back() -> None:
    acts = [nn.GELU(), nn.SiLU(inplace=True), nn.ReLU6(True), nn.Hardtanh(), timm_activations.Swish(inplace=True)]
    base = nn.Sequential(nn.Linear(4, 4), *acts).eval()
    plain = copy.deepcopy(base)
    for leave in (vl.merge, vl.detach):
        model = copy.deepcopy(base)
        vl.attach(model, vl.LoRAConfig(rank=2))
        assert [type(m) for m in model] != [type(m) for m in plain]
        assert [type(m).__name__ for m in model] == [type(m).__name__ for m in plain]
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model):
            leave(twin)
            assert [type(m) for m in twin] == [type(m) for m in plain]
            assert twin[2].inplace and twin[3].inplace and twin[5].inplace
            assert str(twin) == str(plain)


def test_activations_are_swapped_once_for_several_adapters() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.ReLU6())
    for name in ("one", "two"):
        vl.attach(model, vl.LoRAConfig(rank=2), name=name)
    vl.detach(model, "one")
    assert type(model[1]) is not nn.GELU
    vl.detach(model)
    assert type(model[1]) is nn.GELU and type(model[2]) is nn.ReLU6


def parameters_of_peft(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            yield name, parameter


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_gives_the_same_output_and_gradients(rslora: bool) -> None:
    peft = pytest.importorskip("peft")
    base = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(96, 5)).double()
    theirs = peft.get_peft_model(
        copy.deepcopy(base),
        peft.LoraConfig(r=3, lora_alpha=7, use_rslora=rslora, target_modules=["0", "3"], init_lora_weights=False),
    )
    ours = copy.deepcopy(base)
    vl.attach(ours, vl.LoRAConfig(rank=3, alpha=7, method="rslora" if rslora else "lora"))
    peers = {}
    with torch.no_grad():
        for name, theirs_factor in parameters_of_peft(theirs):
            theirs_factor.data = theirs_factor.double()
            layer, factor = name.split(".")[2], name.split(".")[3]
            peers[name] = ours[int(layer)].adapters["default"]["weight"].get_parameter(factor)
            peers[name].copy_(theirs_factor.view(peers[name].shape))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    expected = theirs(x)
    expected.square().sum().backward()
    for route in ("reference", *ROUTES):
        vl.set_route(ours, route)
        ours.zero_grad()
        output = ours(x)
        torch.testing.assert_close(output, expected)
        output.square().sum().backward()
        for name, theirs_factor in parameters_of_peft(theirs):
            torch.testing.assert_close(peers[name].grad, theirs_factor.grad.view(peers[name].shape))


def test_keep_less_and_keep_all_leave_other_modules_alone() -> None:
    for module in (nn.Sigmoid(), nn.Identity(), nn.PReLU(), nn.Linear(2, 2), nn.LeakyReLU()):
        plain = type(module)
        activations.keep_less(module)
        assert type(module) is plain
        activations.keep_all(module)
        assert type(module) is plain
