"""The dense adapted weight, and the memory that it passes through."""

import itertools
import threading

import pytest
import torch
from torch import Tensor

from visionlora.ops.weight import PassingWeight, adapted_weight, is_channels_last

CL = torch.channels_last
SHAPES = [(6, 4), (6, 4, 3), (6, 4, 3, 3), (6, 1, 5, 5), (6, 4, 1, 1), (1, 4, 3, 3), (6, 4, 3, 2, 2)]


def factors(weight: Tensor, rank: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(rank, *weight.shape[1:], dtype=weight.dtype), torch.randn(len(weight), rank, dtype=weight.dtype)


def by_hand(weight: Tensor, A: Tensor, B: Tensor, row_scale: Tensor | None = None) -> Tensor:
    dense = weight + (B @ A.flatten(1)).view(weight.shape)
    return dense if row_scale is None else row_scale.view(-1, *[1] * (weight.dim() - 1)) * dense


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_formula_for_every_shape_and_format(shape: tuple[int, ...]) -> None:
    formats = (torch.contiguous_format, CL) if len(shape) == 4 else (torch.contiguous_format,)
    for format, a_format, scaled in itertools.product(formats, formats, (False, True)):
        weight = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=format)
        A, B = factors(weight)
        A = A.contiguous(memory_format=a_format)
        row_scale = torch.randn(len(weight), dtype=torch.float64) if scaled else None
        expected = by_hand(weight, A, B, row_scale)
        before = weight.clone()
        found = adapted_weight(weight, A, B, row_scale)
        torch.testing.assert_close(found, expected)
        assert found.shape == weight.shape and is_channels_last(found) == is_channels_last(weight)
        with torch.no_grad(), PassingWeight(weight, A, B, row_scale) as passing:
            assert torch.equal(passing, found) and passing.stride() == found.stride()
        assert torch.equal(weight, before)


def test_gradients_reach_the_factors_through_the_dense_weight() -> None:
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    A, B = (each.requires_grad_() for each in factors(weight))
    scale = torch.randn(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda A, B: adapted_weight(weight, A, B, scale), (A, B))
    with PassingWeight(weight, A, B, scale) as passing:
        assert passing.requires_grad


def test_a_low_precision_weight_is_widened_to_the_factors() -> None:
    weight = torch.ones(3, 3, dtype=torch.bfloat16)
    A, B = torch.full((1, 3), 2**-12), torch.ones(3, 1)
    for scale in (None, torch.ones(3, dtype=torch.bfloat16)):
        assert torch.equal(adapted_weight(weight, A, B, scale), torch.full((3, 3), 1 + 2**-12))


def test_it_passes_through_the_same_memory_again_and_again() -> None:
    weight = torch.randn(60, 40)
    addresses = set()
    with torch.no_grad():
        for _ in range(5):
            with PassingWeight(weight, *factors(weight)) as passing:
                addresses.add(passing.data_ptr())
    assert len(addresses) == 1


def test_nested_uses_do_not_share_memory() -> None:
    one, other = torch.randn(6, 4), torch.randn(4, 4, 3, 3)
    a, b = factors(one), factors(other)
    with torch.no_grad():
        for _ in range(3):
            with PassingWeight(one, *a) as outer:
                with PassingWeight(other, *b) as inner, PassingWeight(one, *a, torch.ones(6) * 2) as third:
                    torch.testing.assert_close(inner, by_hand(other, *b))
                    torch.testing.assert_close(third, 2 * by_hand(one, *a))
                torch.testing.assert_close(outer, by_hand(one, *a))


def test_changing_sizes_and_precisions_never_give_a_wrong_weight() -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(200):
            index = int(torch.randint(len(SHAPES), (), generator=generator))
            dtype = (torch.float32, torch.float64)[int(torch.randint(2, (), generator=generator))]
            repeat = int(torch.randint(1, 4, (), generator=generator))
            weight = torch.randn(SHAPES[index], dtype=dtype).repeat(repeat, *[1] * (len(SHAPES[index]) - 1))
            A, B = factors(weight)
            with PassingWeight(weight, A, B) as passing:
                assert passing.dtype == dtype
                torch.testing.assert_close(passing, by_hand(weight, A, B), rtol=1e-5, atol=1e-5)


def test_an_exception_inside_does_no_harm() -> None:
    weight = torch.randn(6, 4)
    a, b = factors(weight), factors(weight)
    with torch.no_grad():
        with pytest.raises(ZeroDivisionError), PassingWeight(weight, *a) as kept:
            raise ZeroDivisionError
        expected = kept.clone()
        with PassingWeight(weight, *b) as passing:
            torch.testing.assert_close(passing, by_hand(weight, *b))
            assert torch.equal(kept, expected), "what the failed use got is not written to"


def test_threads_do_not_share_memory() -> None:
    """Each holds its weight while the other builds its own."""
    barrier, wrong = threading.Barrier(2, timeout=60), []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        try:
            for _ in range(50):
                weight, A, B = (torch.randn(shape, generator=generator) for shape in ((30, 20), (2, 20), (30, 2)))
                with torch.no_grad():
                    barrier.wait()
                    with PassingWeight(weight, A, B) as passing:
                        barrier.wait()
                        if not torch.allclose(passing, by_hand(weight, A, B), atol=1e-5):
                            wrong.append(seed)
                        barrier.wait()
        except Exception as error:
            wrong.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("first", ["inference", "no_grad"])
def test_inference_mode_and_no_grad_may_follow_each_other(first: str) -> None:
    # A size that no other test has used, so that the memory is made here.
    weight = torch.randn(613, 401 if first == "inference" else 409)
    a = factors(weight)
    modes = [torch.inference_mode, torch.no_grad]
    for mode in (*(modes if first == "inference" else reversed(modes)), torch.no_grad, torch.inference_mode):
        with mode(), PassingWeight(weight, *a) as passing:
            torch.testing.assert_close(passing, by_hand(weight, *a))


def test_with_a_graph_the_weight_may_be_kept() -> None:
    weight = torch.randn(6, 4)
    a, b = factors(weight), factors(weight)
    with PassingWeight(weight, *a) as kept:
        pass
    with PassingWeight(weight, *b), torch.no_grad(), PassingWeight(weight, *b):
        pass
    torch.testing.assert_close(kept, by_hand(weight, *a))


def test_what_counts_as_channels_last() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert not is_channels_last(x) and is_channels_last(x.contiguous(memory_format=CL))
    assert not is_channels_last(x[:, :1].contiguous(memory_format=CL)), "one channel is stored in the usual order too"
    assert not is_channels_last(x[:, :, :1, :1].contiguous(memory_format=CL))
    assert not is_channels_last(x.contiguous(memory_format=CL)[:, :2]), "and this in neither"
    assert not is_channels_last(x[0]) and not is_channels_last(x[None])
