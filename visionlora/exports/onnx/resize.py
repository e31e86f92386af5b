"""Antialiased resizing for torch's older ONNX exporter, which has none: transformers resample their positions by it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.onnx.symbolic_helper import parse_args

_OPSET = 18
"""The first one whose Resize averages."""


@contextmanager
def antialiased_resize() -> Iterator[None]:
    """Within the block ``torch.onnx.export(dynamo=False)`` knows torch's two antialiased interpolations."""
    names = {"aten::_upsample_bilinear2d_aa": "linear", "aten::_upsample_bicubic2d_aa": "cubic"}
    for name, mode in names.items():
        torch.onnx.register_custom_op_symbolic(name, _symbolic(mode), _OPSET)
    try:
        yield
    finally:
        for name in names:
            torch.onnx.unregister_custom_op_symbolic(name, _OPSET)


def _symbolic(mode: str) -> Callable[..., Any]:
    @parse_args("v", "v", "b", "v")
    def symbolic(g: Any, images: Any, size: Any, align_corners: bool, _scales: Any) -> Any:
        if align_corners:
            raise ValueError("antialiased resizing with align_corners has no counterpart in ONNX")
        first = g.op("Constant", value_t=torch.tensor([0]))
        third = g.op("Constant", value_t=torch.tensor([2]))
        batch_and_channels = g.op("Slice", g.op("Shape", images), first, third)
        sizes = g.op("Concat", batch_and_channels, g.op("Cast", size, to_i=7), axis_i=0)  # 7: int64
        nothing = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        return g.op(
            "Resize",
            images,
            nothing,
            nothing,
            sizes,
            antialias_i=1,
            coordinate_transformation_mode_s="pytorch_half_pixel",
            cubic_coeff_a_f=-0.5,  # Keys' kernel, as torch has it where it averages, and PIL
            exclude_outside_i=1,
            mode_s=mode,
        )

    return symbolic
