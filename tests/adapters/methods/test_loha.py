"""LoHa: the product of two low-rank matrices, entry by entry."""

import pytest
import torch
from torch import nn

import visionlora as vl
from visionlora.adapters.methods.loha import LoHa


@pytest.mark.parametrize("shape", [(6, 8), (6, 4, 3, 3)])
def test_the_update_is_the_product_entry_by_entry(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape).double()
    loha = LoHa(weight, rank=2, alpha=6).requires_grad_(False)
    assert torch.equal(loha(weight), weight)
    nn.init.normal_(loha.hada_w2_b)
    update = (loha(weight) - weight).flatten(1)
    one, other = loha.hada_w1_b.flatten(1), loha.hada_w2_b.flatten(1)
    for i in range(update.shape[0]):
        for j in range(update.shape[1]):
            expected = 3 * (loha.hada_w1_a[i] @ one[:, j]) * (loha.hada_w2_a[i] @ other[:, j])
            torch.testing.assert_close(update[i, j], expected)
    assert torch.linalg.matrix_rank(update) == 4


def test_it_has_the_numbers_of_lora_at_twice_the_rank() -> None:
    sizes = []
    for method, rank in (("loha", 3), ("lora", 6)):
        report = vl.attach(nn.Sequential(nn.Conv2d(8, 9, 3)), vl.LoRAConfig(rank=rank, method=method))
        sizes.append(report.adapter_parameters)
    assert sizes[0] == sizes[1]
