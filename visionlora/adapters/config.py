"""What an adapter is asked to be."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

from visionlora.adapters.methods.registry import check_method
from visionlora.errors import InputError, did_you_mean

_THEIRS = {
    "r": "'rank'",
    "lora_alpha": "'alpha'",
    "target_modules": "'targets'",
    "exclude_modules": "'exclude'",
    "modules_to_save": "'unfreeze'",
    "use_rslora": "method='rslora'",
    "use_dora": "method='dora'",
    "lora_dropout": "nothing: an update of the weight has no input of its own to drop from; leave it out, or take "
    "'factor_dropout', which leaves out parts of the update",
}
"""PEFT's words for settings, and ours."""

INITS = ("kaiming", "gaussian", "orthogonal", "pissa")
FROM_IMAGES = "eva"
"""The start that a run alone can give."""
BATCHNORM_MODES = ("frozen", "recalibrate", "train")


@dataclass(frozen=True)
class LoRAConfig:
    """Which layers of a model get a low-rank update, and how large it is; ``lora`` in the config of a run.

    Args:
        rank: number of columns of ``lora_B``, at least 1; less on a layer than which the adapter would be larger (the
            report says so). ``"auto"`` is the largest for all layers with which they keep the ``budget``;
            ``spread_ranks`` then gives more to layers that need more, as a run does by itself.
        alpha: the update is scaled by ``alpha / rank`` (``"lora"``, Hu et al. 2021, arXiv:2106.09685)
            or ``alpha / sqrt(rank)`` (``"rslora"``, Kalajdzievski 2023, arXiv:2312.03732).
        targets: layer names (the whole name or its end), globs, ``re:`` and a regular expression, each
            optionally with parts of a fused projection (``"blocks.*.attn.qkv:q,v"``: rows of one update,
            which share its ``lora_A``), or a preset:
            ``"all"``, ``"attention"``, ``"conv"``, ``"linear"``.
        exclude: patterns of layers to leave out; ``"before:blocks.9"`` is all that is defined before that module (in a
            run's config ``lora.from=blocks.9``).
        unfreeze: names of modules that train fully (a new head), or of parameters (``pos_embed``); they belong to the
            adapter. ``"norms"`` is the weight and bias of every normalisation layer, ``"biases"`` every bias. None is
            nothing for ``attach``, and the model's head in a run.
        rank_pattern: ranks of the layers that match a pattern; the last match wins.
        alpha_pattern: alphas likewise.
        method: ``"lora"``, ``"rslora"``, ``"dora"``, ``"lokr"``, ``"loha"``, ``"lora_fa"``, ``"tucker"``, ``"ia3"``, or
            one that was registered.
        batchnorm: ``"frozen"`` (also under ``model.train()``), ``"recalibrate"`` (the running statistics
            follow the new images) or ``"train"`` (statistics, weight and bias).
        init: where LoRA's factors start: ``"kaiming"`` (A at random as in a linear layer, B at zero), ``"gaussian"`` (A
            normal with deviation 1/r, B at zero), ``"orthogonal"`` (OLoRA) and ``"pissa"``, of the weight itself, and
            subtracted where they start: A and B are in the file twice, and a step has 2 r channels. ``"eva"`` needs
            images, so it is for runs; elsewhere attach with another, and call ``start_from_data``.
        factor_dropout: share of the r rank-one parts of each update that a training forward leaves out, at least 0 and
            below 1; the others are scaled up. It is not PEFT's ``lora_dropout``, which drops from a layer's input.
        budget: with ``rank="auto"``, the size of the adapter's numbers, unfrozen modules included: ``"500kB"``.

    Raises:
        InputError: a value is out of its range.
    """

    rank: int | Literal["auto"] = 8
    alpha: float = 16.0
    targets: str | list[str] = "all"
    exclude: list[str] = field(default_factory=list)
    unfreeze: list[str] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    method: str = "lora"
    batchnorm: str = "frozen"
    factor_dropout: float = 0.0
    init: str = "kaiming"
    budget: str | None = None

    # For the config of a run, which has this class as a section.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __new__(cls, *_args: Any, **settings: Any) -> Self:
        _check_known(cls, settings)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if (self.rank == "auto") != (self.budget is not None):
            given = f"budget is {self.budget!r}" if self.rank != "auto" else "rank is 'auto'"
            raise InputError(f"{given}; rank='auto' and a budget such as '2MB' go together")
        if self.rank == "auto" and self.init == FROM_IMAGES:
            raise InputError(
                "rank is 'auto' and init is 'eva', and both spread ranks over layers; leave one of them out"
            )
        if self.rank == "auto" and self.rank_pattern:
            raise InputError("rank is 'auto', and rank_pattern gives ranks, too; leave one of them out")
        ranks = {} if self.rank == "auto" else {"rank": self.rank}
        for pattern, rank in {**ranks, **self.rank_pattern}.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise InputError(f"{_entry('rank', pattern)} is {rank!r}; give a whole number of at least 1")
        for pattern, alpha in {"alpha": self.alpha, **self.alpha_pattern}.items():
            if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha) or alpha == 0:
                raise InputError(f"{_entry('alpha', pattern)} is {alpha!r}; give a finite number other than 0")
        check_method(self.method)
        if self.batchnorm not in BATCHNORM_MODES:
            raise InputError(
                f"batchnorm is {self.batchnorm!r}; choose from {', '.join(BATCHNORM_MODES)}"
                f"{did_you_mean(str(self.batchnorm), BATCHNORM_MODES)}"
            )
        inits = (*INITS, FROM_IMAGES)
        if self.init not in inits:
            raise InputError(
                f"init is {self.init!r}; choose from {', '.join(inits)}{did_you_mean(str(self.init), inits)}"
            )
        share = self.factor_dropout
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise InputError(f"factor_dropout is {share!r}; give a share of at least 0 and below 1")
        for option in ("exclude", "unfreeze"):
            if isinstance(getattr(self, option), str):
                raise InputError(f"{option} is a string; give a list of names: {option}=[{getattr(self, option)!r}]")

    @property
    def target_patterns(self) -> list[str]:
        """The targets as a list."""
        return [self.targets] if isinstance(self.targets, str) else list(self.targets)

    def for_model(self, head: list[str], unused: list[str]) -> "LoRAConfig":
        """The config with what a task knows of its model: the head, which trains unless ``unfreeze`` says what does,
        and layers that no output depends on, which are left out.
        """
        unfreeze = head if self.unfreeze is None else self.unfreeze
        return replace(self, unfreeze=unfreeze, exclude=[*self.exclude, *unused])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a file's header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LoRAConfig":
        """The inverse of ``to_dict``; an unknown key is an InputError."""
        return cls(**values)


def exactly(
    method: str, ranks: dict[str, int], alphas: dict[str, float], unfrozen: list[str], batchnorm: str = "frozen"
) -> LoRAConfig:
    """The config of an adapter on the layers of these names, with their own ranks and alphas.

    Raises:
        InputError: a rank or an alpha is out of its range.
    """
    rank, alpha = _most_common(ranks, LoRAConfig.rank), _most_common(alphas, LoRAConfig.alpha)
    return LoRAConfig(
        rank,
        alpha,
        list(ranks),
        unfreeze=unfrozen or None,
        rank_pattern={path: own for path, own in ranks.items() if own != rank},
        alpha_pattern={path: own for path, own in alphas.items() if own != alpha},
        method=method,
        batchnorm=batchnorm,
    )


def _most_common(values: dict[str, Any], otherwise: Any) -> Any:
    found = list(values.values())
    return max(dict.fromkeys(found), key=found.count) if found else otherwise


def _check_known(config: type[LoRAConfig], settings: Iterable[str]) -> None:
    known = [f.name for f in fields(config)]
    for key in settings:
        if key not in known:
            hint = f"; here it is {_THEIRS[key]}" if key in _THEIRS else did_you_mean(key, known)
            raise InputError(f"unknown LoRA setting '{key}'{hint}")


def _entry(option: str, pattern: str) -> str:
    return option if pattern == option else f"{option}_pattern['{pattern}']"
