"""What the rest of the package may ask of an adapter method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from visionlora.ops.weight import unit_scale


class Factors(NamedTuple):
    """An adapted weight as the fused operations take it: ``row_scale * (weight + B @ A)``.

    With ``unit_rows`` the rows of ``weight + B @ A`` are divided by their norms, as constants, before.

    Attributes:
        A: (r, *weight.shape[1:]).
        B: (dim0, r).
        row_scale: (dim0,), or None for ones.
    """

    A: Tensor
    B: Tensor
    row_scale: Tensor | None = None
    unit_rows: bool = False


class Method(nn.Module):
    """A function from a frozen weight to an adapted weight, with the tensors that train.

    A subclass makes its tensors in ``__init__``, so that the weight is at first adapted to itself, bit for bit, and
    says in ``adapted`` what they do to a weight. The other methods have answers that hold for any subclass. What its
    ``state_dict`` holds is what the adapter's file has of it: a method is rebuilt by its arguments, and the tensors
    of that dict are then filled.

    A weight is seen as rows of its dimension 0. Where only some of them are adapted (q and v of a fused projection),
    the subclass is built for these rows, and sees no others.

    Args:
        weight: the frozen weight, (dim0, ...); gives shape, device and precision.
        rank: as ``LoRAConfig`` has it for the layer; a method may have no use for it.
        alpha: likewise.

    Attributes:
        parts: names of the rows that are adapted, such as ``"q,v"``, for reports and files; empty for all.
        rows: (n,) indices of those rows, or None for all.
        factor_dropout: share of the rank-one parts of the update that is left out of a training forward.
        asked_rank: what ``attach`` was asked for, where ``rank`` is less as it would have been larger than the weight.
    """

    adds: ClassVar[bool] = False
    """Whether what is added to a weight is the same for every weight, so that several adapters of a layer add up."""
    can_pad: ClassVar[bool] = False
    """Whether ``pad`` has a meaning."""
    drops_factors: ClassVar[bool] = False
    """Whether ``factor_dropout`` has a meaning: the method leaves rank-one parts of its update out by ``thinned``."""
    has_rank: ClassVar[bool] = True
    """Whether ``rank`` means something, and is shown."""
    group: ClassVar[Literal["adapter", "head"]] = "adapter"
    """Whose learning rate the tensors train with."""

    rows: Tensor | None

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank, self.alpha, self.parts, self.factor_dropout = rank, float(alpha), "", 0.0
        self.asked_rank = rank
        self.register_buffer("rows", None, persistent=False)

    def adapted(self, weight: Tensor) -> Tensor:
        """The adapted weight. ``weight`` is in the precision of ``exact``, and so is the answer; shapes agree."""
        raise NotImplementedError

    def factors(self, weight: Tensor) -> Factors | None:
        """The same for the fused operations, in ``weight``'s rows; None leaves it to autograd through ``adapted``."""
        return None

    def update(self, weight: Tensor) -> Tensor:
        """``adapted(weight) - weight``, if there is a way that rounds less."""
        return self.adapted(weight) - weight

    @classmethod
    def obstacle(cls, layer: nn.Module) -> str:
        """Why the method has no effect on this layer, or an empty string."""
        del layer
        return ""

    def thinned(self, factor: Tensor) -> Tensor:
        """A factor (..., r) of which, in training, columns are left out at random, and the others scaled up."""
        if not self.factor_dropout or not self.training:
            return factor
        kept = torch.rand(factor.shape[-1], device=factor.device) >= self.factor_dropout
        return factor * (kept / (1 - self.factor_dropout)).to(factor.dtype)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Within the block nothing is left out at random."""
        training, self.training = self.training, False
        try:
            yield
        finally:
            self.training = training

    def starting_at_zero(self) -> list[nn.Parameter]:
        """Of two factors the one that starts at zero, LoRA's B, which LoRA+ gives a rate of its own."""
        return []

    @staticmethod
    def divisor(rank: int) -> float:
        """What alpha is divided by, so that an update of another rank can have the same scale."""
        return rank

    @property
    def numbers(self) -> int:
        """How many the adapter's file has of it."""
        return sum(tensor.numel() for tensor in self.state_dict().values())

    @classmethod
    def largest_rank(cls, weight: Tensor, rank: int) -> int:
        """The largest rank, at most this one, with which the method has no more numbers than the weight; at least 1."""
        shape = torch.empty_like(weight, device="meta")
        return largest(lambda tried: cls(shape, tried, 1.0).numbers <= weight.numel(), rank)

    def pad(self, rank: int) -> None:
        """Grow to a rank with zeros, and do what it did; its tensors are new ones."""
        raise NotImplementedError

    def note(self, weight: Tensor) -> str:
        """A remark for the layer's line of the report, or an empty string."""
        return ""

    @classmethod
    def build_capped(cls, weight: Tensor, rank: int, alpha: float, parts: str = "", rows: Tensor | None = None) -> Self:
        """As ``build``, of a lower rank where the method would have more numbers than its rows of the weight.

        The update's scale stays: alpha is lower, too.
        """
        method = cls.build(weight, rank, alpha, parts, rows)
        own = rows_of(weight, rows)
        if not cls.has_rank or method.numbers <= own.numel():
            return method
        most = cls.largest_rank(own, rank)
        method = cls.build(weight, most, alpha * cls.divisor(most) / cls.divisor(rank), parts, rows)
        method.asked_rank = rank
        return method

    @classmethod
    def build(cls, weight: Tensor, rank: int, alpha: float, parts: str = "", rows: Tensor | None = None) -> Self:
        """The method for these rows of a weight, or all of them."""
        method = cls(rows_of(weight, rows), rank, alpha)
        method.parts, method.rows = parts, None if rows is None else rows.to(weight.device)
        return method

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, with the shape and dtype of ``weight``; computed without autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            rows = exact(weight)
            if self.rows is None:
                return self.adapted(rows).to(weight.dtype)
            return rows.index_copy(0, self.rows, self.adapted(rows[self.rows])).to(weight.dtype)

    def plus(self, weight: Tensor, by: Tensor) -> Tensor:
        """The weight plus ``by`` times what the method adds, as ``forward`` gives it; for a method that ``adds``."""
        with torch.autocast(weight.device.type, enabled=False):
            rows = exact(weight)
            if self.rows is None:
                return (rows + by * self.update(rows)).to(weight.dtype)
            return rows.index_add(0, self.rows, by * self.update(rows[self.rows])).to(weight.dtype)

    def all_factors(self, weight: Tensor) -> Factors | None:
        """``factors`` for the whole weight, those of rows that are not adapted included."""
        if self.rows is None:
            return self.factors(exact(weight))
        found = self.factors(exact(weight[self.rows]))
        if found is None:
            return None
        A, B, row_scale, unit_rows = found
        if row_scale is not None:
            # Rows that are not adapted keep their length.
            row_scale = unit_scale(exact(weight[self.rows]), A, B, row_scale) if unit_rows else row_scale
            row_scale = row_scale.new_ones(len(weight)).index_copy(0, self.rows, row_scale)
        return Factors(A, B.new_zeros(len(weight), B.shape[1]).index_copy(0, self.rows, B), row_scale)

    @torch.no_grad()
    def whole_update(self, weight: Tensor) -> Tensor:
        """What the method adds to the weight as it is, in the precision of ``exact``, without a graph."""
        rows = exact(weight)
        with self.at_rest():
            if self.rows is None:
                return self.update(rows)
            return torch.zeros_like(rows).index_copy(0, self.rows, self.update(rows[self.rows]))

    @torch.no_grad()
    def update_norm(self, weight: Tensor) -> Tensor:
        """Frobenius norm of ``whole_update``, a scalar."""
        return self.whole_update(weight).norm()

    def extra_repr(self) -> str:
        parts = [f"rank={self.rank}, alpha={self.alpha:g}"] if self.has_rank else []
        return ", ".join([*parts, *([f"parts={self.parts}"] if self.parts else [])])


def constant(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A number as a tensor without dimensions, which may be on another device and has no part in a product's precision:
    torch.compile then makes one program for all. In the factors' precision a product is as quick as by a number.
    """
    return torch.tensor(value, dtype=dtype, device="cpu")


def rows_of(weight: Tensor, rows: Tensor | None) -> Tensor:
    """The rows of a frozen weight that a method is for, or all of them, without a graph."""
    weight = weight.detach()
    return weight if rows is None else weight[rows.to(weight.device)]


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number from 1 to ``limit`` that fits, where each does that is below one that does; 1 is not asked."""
    fitting, too_large = 1, limit + 1
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        if fits(middle):
            fitting = middle
        else:
            too_large = middle
    return fitting


def exact(weight: Tensor) -> Tensor:
    """The weight in float32 at least: updates far below one unit in the last place of bfloat16 must still add up."""
    if weight.dtype == torch.float32:  # as nearly always, and sooner than by asking for it
        return weight
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
