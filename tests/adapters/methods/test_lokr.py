"""LoKr: the Kronecker product by hand, and PEFT's numbers."""

import copy
import warnings

import pytest
import torch
from torch import nn

import visionlora as vl
from visionlora.adapters.methods.lokr import LoKr

SHAPES = [(32, 48), (6, 8), (7, 13), (32, 24, 3, 3), (16, 1, 5, 5), (32, 36, 3), (8, 4, 3, 3, 3), (1, 9)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_update_is_the_kronecker_product(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape).double()
    lokr = LoKr(weight, rank=2, alpha=6)
    assert torch.equal(lokr(weight), weight)
    with torch.no_grad():
        lokr.lokr_w1.normal_()
    w1, w2 = lokr.lokr_w1.detach(), lokr.lokr_w2
    if w2 is None:
        w2 = torch.einsum("or,ri...->oi...", lokr.lokr_w2_a, lokr.lokr_w2_b)
    (down, across), (rows, columns) = w1.shape, w2.shape[:2]
    assert (down * rows, across * columns) == shape[:2]
    expected = torch.empty(shape).double()
    for i in range(down):
        for j in range(across):
            block = 3 * w1[i, j] * w2
            expected[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] = block.detach()
    torch.testing.assert_close(lokr(weight) - weight, expected)


# PEFT's conv1d has another product where w2 is a whole tensor: its dimensions are one short of those of w1.
@pytest.mark.parametrize(
    ("kind", "rank"), [("linear", 2), ("linear", 16), ("conv1d", 2), ("conv2d", 2), ("conv2d", 16)]
)
def test_peft_gives_the_same_output_and_gradients(kind: str, rank: int) -> None:
    peft = pytest.importorskip("peft")
    layers = {"linear": nn.Linear(48, 60), "conv1d": nn.Conv1d(24, 36, 3), "conv2d": nn.Conv2d(24, 36, 3, stride=2)}
    shapes = {"linear": (5, 48), "conv1d": (2, 24, 9), "conv2d": (2, 24, 9, 9)}
    base, x = nn.Sequential(layers[kind]).double(), torch.randn(shapes[kind]).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.LoKrConfig(r=rank, alpha=6, target_modules=["0"], init_weights=False)
        theirs = peft.get_peft_model(copy.deepcopy(base), settings).double()
    vl.attach(base, vl.LoRAConfig(rank=rank, alpha=6, method="lokr"))
    other = theirs.base_model.model[0]
    pairs = []
    for name, own in base[0].adapters["default"]["weight"].named_parameters():
        factor = getattr(other, name)["default"]
        pairs.append((own, factor))
        with torch.no_grad():
            own.copy_(factor.reshape(own.shape))
    found, expected = base(x), theirs(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert len(pairs) == (3 if rank == 2 else 2)
    for own, factor in pairs:
        torch.testing.assert_close(own.grad, factor.grad.reshape(own.shape), rtol=1e-9, atol=1e-9)


def test_the_report_names_the_blocks_and_its_size() -> None:
    report = vl.attach(nn.Sequential(nn.Linear(48, 60)), vl.LoRAConfig(rank=1, method="lokr"))
    (layer,) = report.adapted
    # 60 = 6 * 10, 48 = 6 * 8: w1 has 6 x 6, w2 is 10 x 1 times 1 x 8.
    assert layer.parameters == 36 + 10 + 8 and layer.note == "6 x 6 blocks of 10 x 8"


def test_it_adds_up_with_lora() -> None:
    model = nn.Sequential(nn.Linear(8, 6))
    frozen = model[0].weight.detach().clone()
    for name in ("lora", "lokr"):
        vl.attach(model, vl.LoRAConfig(rank=2, method=name), name=name)
        with torch.no_grad():
            for parameter in model[0].adapters[name].parameters():
                parameter.normal_(std=0.1)
    updates = [model[0].adapters[name]["weight"].whole_update(frozen) for name in ("lora", "lokr")]
    assert all(update.abs().max() > 0 for update in updates)
    vl.activate(model, ["lokr", "lora"])
    torch.testing.assert_close(model[0].weight, frozen + sum(updates))
