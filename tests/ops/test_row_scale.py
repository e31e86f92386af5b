"""The gradient of a row scale, from the weight's gradient or from an output that somebody keeps."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from helpers.dense_oracle import NAMES, Problem, check, conv_problem, linear_problem
from visionlora.ops.kept import Kept, asked_to_keep, asking, scale_gradient

WITH_SCALE = (*NAMES, "row_scale")
FORMATS = (torch.contiguous_format, torch.channels_last)


def scaled(problem: Problem, names: Sequence[str] = WITH_SCALE) -> Problem:
    assert problem.row_scale is not None
    return problem.requiring(names)


@pytest.mark.parametrize("route", ["auto", "factored", "dense"])
@pytest.mark.parametrize("names", [WITH_SCALE, ("row_scale",), ("x", "row_scale"), NAMES])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolutions(route: str, names: Sequence[str], format: torch.memory_format, groups: int) -> None:
    problem = conv_problem((2, 8, 7, 7), 16, (3, 3), padding=1, groups=groups, row_scale=True, format=format)
    check(scaled(problem, names), route)


@pytest.mark.parametrize("route", ["auto", "factored", "dense"])
@pytest.mark.parametrize("names", [WITH_SCALE, ("row_scale",), ("x", "row_scale"), NAMES])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_a_linear_layers(route: str, names: Sequence[str], shape: tuple[int, ...]) -> None:
    check(scaled(linear_problem(shape, 6, row_scale=True), names), route)


@pytest.mark.parametrize("shape", [(7, 6), (3, 6, 5), (3, 6, 5, 4), (2, 6, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_from_the_output(shape: tuple[int, ...], dtype: torch.dtype, bias: bool) -> None:
    around = [1, 6, *[1] * (len(shape) - 2)]
    u, g = torch.randn(shape).double(), torch.randn(shape).to(dtype)
    scale, shift = torch.randn(6).double(), torch.randn(6).double() if bias else None
    scale[2] = 0
    output = scale.view(around) * u + (0 if shift is None else shift.view(around))
    wide = torch.promote_types(dtype, torch.float32)
    found = scale_gradient(output.to(dtype), g, None if shift is None else shift.to(wide), scale.to(wide))
    expected = (g.double() * u).sum([dim for dim in range(len(shape)) if dim != 1])
    expected[2] = 0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol={8: 1e-12, 4: 1e-4, 2: 0.2}[g.element_size()])


def made() -> tuple[Tensor, Kept]:
    kept = Kept()
    return asking(torch.randn(3, 4), kept), kept


def test_a_note_is_for_the_first_reader_of_the_output_as_it_was_made() -> None:
    output, kept = made()
    assert asked_to_keep(output) is kept and asked_to_keep(output) is None
    output, _ = made()
    output += 1
    assert asked_to_keep(output) is None


def test_what_is_kept_is_taken_once_and_not_if_it_was_written_to() -> None:
    output, kept = made()
    gradient = torch.randn(3, 4)
    with torch.no_grad():
        assert kept.take(gradient) is None
        kept.as_it_is(output)
        assert torch.equal(kept.take(gradient), output) and kept.take(gradient) is None
        kept.as_it_is(output)
        output += 1
        assert kept.take(gradient) is None
