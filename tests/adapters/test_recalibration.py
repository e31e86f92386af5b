"""BatchNorm statistics of other images: what a plain loop measures, in the adapter and in its file, not in the base."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import visionlora as vl
from helpers.cases import perturb

BATCHES = [2 + 3 * torch.randn(size, 3, 32, 32) for size in (6, 4, 5)]


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3, zero_init_last=False, drop_rate=0.5).eval()


def adapted(**config: Any) -> nn.Module:
    model = resnet()
    vl.attach(model, vl.LoRAConfig(rank=2, **config))
    perturb(model, 0.05)
    return model


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))}


def by_hand(model: nn.Module) -> dict[str, Tensor]:
    """Means over the batches of each BatchNorm's own mean and unbiased variance, on a merged copy."""
    plain = vl.merged(model).eval()
    sums: dict[str, Tensor] = {}
    for name, module in plain.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.training = True

            def note(_module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                values = inputs[0].transpose(0, 1).flatten(1)
                for key, value in (("running_mean", values.mean(1)), ("running_var", values.var(1))):
                    sums[f"{name}.{key}"] = sums.get(f"{name}.{key}", 0) + value / len(BATCHES)

            module.register_forward_pre_hook(note)
    with torch.no_grad():
        for batch in BATCHES:
            plain(batch)
    return sums


@pytest.mark.parametrize("config", [{}, {"batchnorm": "train"}, {"unfreeze": ["norms"]}, {"batchnorm": "recalibrate"}])
def test_the_statistics_are_those_of_a_plain_loop_and_travel_in_the_file(config: Any, tmp_path: Path) -> None:
    model, x = adapted(**config), BATCHES[0]
    before, expected = statistics(resnet()), by_hand(model)
    modes = [module.training for module in model.modules()]
    measured = vl.recalibrate(model, [(batch, "label") for batch in BATCHES])
    assert str(measured) == f"{len(expected) // 2} BatchNorm layers measured on 15 images"
    found = statistics(model)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
    assert [module.training for module in model.modules()] == modes
    with vl.disabled(model):
        assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())
    vl.save_adapter(model, tmp_path / "a.safetensors")
    fresh = resnet()
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    with torch.no_grad():
        assert torch.equal(fresh(x), model(x))
    vl.detach(model)
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())


def test_folded_layers_and_batches_of_tensors_alone_are_taken() -> None:
    plain, folded = adapted(), adapted()
    folded.load_state_dict(plain.state_dict())
    assert vl.fold_batchnorm(folded, BATCHES[0])
    for model in (plain, folded):
        vl.recalibrate(model, BATCHES)
    for name, value in statistics(plain).items():
        torch.testing.assert_close(statistics(folded)[name], value)


class Frozen(nn.Module):
    """Torchvision's BatchNorm that never measures."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def frozen() -> nn.Module:
    model = Frozen()
    vl.attach(model)
    return model


def two() -> nn.Module:
    model = adapted()
    vl.attach(model, name="second")
    return model


NAN = [torch.full((2, 3, 32, 32), float("nan"))]
REFUSED: list[tuple[Callable[[], nn.Module], Any, str]] = [
    (adapted, [], "the loader is empty"),
    (adapted, NAN, "are not finite on these images; nothing was changed"),
    (adapted, [torch.randn(1, 3, 8, 8)], "a batch can't be measured"),
    (two, BATCHES, "active are ['second']; activate 'default' alone"),
    (frozen, BATCHES, "Frozen has no BatchNorm with running statistics"),
    (resnet, BATCHES, "no adapter 'default' was attached"),
]


@pytest.mark.parametrize(("make", "loader", "expected"), REFUSED, ids=[each[2][:30] for each in REFUSED])
def test_what_can_not_be_measured_is_refused_and_changes_nothing(
    make: Callable[[], nn.Module], loader: Any, expected: str
) -> None:
    model = make()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    with pytest.raises(vl.InputError) as error:
        vl.recalibrate(model, loader)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
