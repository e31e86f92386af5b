"""The share of an update in new directions, against numpy's singular value decomposition and by construction."""

import numpy as np
import pytest
import torch
from torch import nn

import visionlora as vl
from visionlora.studies.directions import compared, directions


def orthogonal(seed: int, size: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double())[0]


LEFT, RIGHT = orthogonal(0, 12), orthogonal(1, 20)
VALUES = torch.tensor([8.0, 6.0, 5.0, *[0.5] * 9], dtype=torch.float64)  # three hold 98%, two 78%
WEIGHT = LEFT @ torch.diag(VALUES) @ RIGHT[:12]


def along(i: int, j: int, size: float) -> torch.Tensor:
    return size * torch.outer(LEFT[:, i], RIGHT[j])


def test_what_lies_along_main_directions_is_not_new() -> None:
    found = compared("a", WEIGHT, WEIGHT + along(0, 2, 0.1) + along(1, 1, 0.1))
    assert (found.main, found.shape, found.intruders) == (3, (12, 20), 0)
    assert found.new == pytest.approx(0, abs=1e-9)
    assert found.chance == pytest.approx(1 - 9 / 240)


def test_what_lies_beside_them_is_new_by_its_share() -> None:
    found = compared("a", WEIGHT, WEIGHT + along(0, 0, 0.3) + along(5, 6, 0.4))
    assert found.new == pytest.approx(0.16 / 0.25)
    assert found.size == pytest.approx(0.5 / float(VALUES.norm()))
    assert compared("a", WEIGHT, WEIGHT + along(0, 15, 0.3)).new == pytest.approx(1)


def test_a_strong_direction_of_its_own_is_an_intruder() -> None:
    square = orthogonal(2, 16)
    weight = square[:, :8] @ torch.diag(torch.linspace(3, 1, 8).double()) @ orthogonal(3, 16)[:8]  # of rank 8
    mixed = square[:, 8:].sum(dim=1) / 8**0.5
    strong = weight + 5 * torch.outer(mixed, orthogonal(3, 16)[12])
    assert compared("a", strong, strong).intruders == 0
    tall = square[:, :8] * torch.linspace(3, 1, 8).double()  # (16, 8): eight columns span what there is
    assert compared("a", tall, torch.cat([5 * mixed[:, None], tall[:, 1:]], dim=1)).intruders == 1


def test_an_update_of_nothing_has_nothing_new() -> None:
    found = compared("a", WEIGHT, WEIGHT)
    assert (found.new, found.size, found.intruders) == (0, 0, 0)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_layers_of_a_model_against_numpy(method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 6))
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    vl.attach(model, vl.LoRAConfig(rank=2, method=method))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    found = directions(model)
    assert [one.path for one in found] == ["0", "2"]
    for one in found:
        w = plain[f"{one.path}.weight"].double().flatten(1).numpy()
        after = vl.merged(model).get_parameter(f"{one.path}.weight").detach().double().flatten(1).numpy()
        u, s, vt = np.linalg.svd(w)
        k = next(k for k in range(1, len(s) + 1) if (s[:k] ** 2).sum() >= 0.9 * (s**2).sum())
        projected = u[:, :k] @ u[:, :k].T @ (after - w) @ vt[:k].T @ vt[:k]
        expected = 1 - (projected**2).sum() / ((after - w) ** 2).sum()
        assert one.main == k and one.new == pytest.approx(expected, abs=1e-5) and 0 < one.new <= 1
