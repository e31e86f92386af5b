"""The product of LoHa: torch's own gradients, of both orders, and no matrix kept."""

import torch

from helpers.dense_oracle import saved_storages
from visionlora.ops.hadamard import hadamard_of_products


def factors() -> list[torch.Tensor]:
    shapes = ((6, 2), (2, 5), (6, 3), (3, 5))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def test_gradients() -> None:
    given = factors()
    assert torch.autograd.gradcheck(hadamard_of_products, given)
    assert torch.autograd.gradgradcheck(hadamard_of_products, given)
    A1, B1, A2, B2 = given
    assert torch.equal(hadamard_of_products(*given), (A1 @ B1) * (A2 @ B2))


def test_only_factors_are_kept() -> None:
    given = factors()
    saved = saved_storages(lambda: hadamard_of_products(*given))
    assert sum(saved.values()) <= sum(each.numel() * each.element_size() for each in given)


def test_functions_of_functions() -> None:
    given = factors()

    def total(*factors: torch.Tensor) -> torch.Tensor:
        return hadamard_of_products(*factors).square().sum()

    found = torch.func.grad(total, argnums=(0, 1, 2, 3))(*given)
    expected = torch.autograd.grad(total(*given), given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
