"""Methods to compare, by the words that people have for them."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from visionlora.adapters.methods.registry import METHODS, method_of
from visionlora.adapters.paths import numbered
from visionlora.adapters.targets import resolve
from visionlora.config import check_config, parse_overrides
from visionlora.errors import InputError, did_you_mean, some
from visionlora.sections import RunConfig
from visionlora.tasks.models import Built

FROZEN = "frozen"
NORM = "norm"
FULL = "full"
_WHOLE = {
    FROZEN: ["train.method=head"],
    NORM: ["train.method=head"],
    FULL: ["train.method=full"],
    "scratch": ["train.method=full", "model.pretrained=false", "model.checkpoint=null", "model.sha256=null"],
}
"""Methods without an adapter. ``norm`` trains the normalisation layers beside the head."""
PEFT = "peft"
"""PEFT's own LoRA."""
LAST_STAGE = "-last-stage"


@dataclass(frozen=True)
class Variant:
    """A method at a rank.

    Attributes:
        word: as it was asked for, such as ``lora:init=pissa``, without its rank.
        base: without settings and stage: ``lora``.
        rank: None where it has none.
        extra: settings of its own, as overrides.
    """

    word: str
    base: str
    rank: int | None = None
    extra: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For tables."""
        return self.word if self.rank is None else f"{self.word}, rank {self.rank}"

    @property
    def slug(self) -> str:
        """For names of folders."""
        rank = "" if self.rank is None else f"-r{self.rank}"
        return re.sub(r"[^A-Za-z0-9_.=+-]+", "-", self.word) + rank

    @property
    def last_stage(self) -> bool:
        """Whether it adapts the model's last stage alone."""
        return self.word.partition(":")[0].endswith(LAST_STAGE)

    @property
    def one_rate(self) -> bool:
        """Whether all that trains has the head's learning rate."""
        return self.base in (FROZEN, NORM)

    @property
    def peft(self) -> bool:
        """Whether its layers are PEFT's."""
        return self.base == PEFT


def parse_methods(words: Sequence[str], ranks: Sequence[int]) -> list[Variant]:
    """Words such as ``frozen``, ``dora``, ``lora-last-stage`` or ``lora:init=pissa+train.lora_plus=4``, each at every
    rank that means something to it, or at its own: ``loha@4``. A setting without a section is one of ``lora``.

    Raises:
        InputError: an unknown method, one that is named twice, or a setting that is none.
    """
    variants: list[Variant] = []
    for word in words:
        asked, _, given = word.partition(":")
        name, at, own = asked.partition("@")
        base = name.removesuffix(LAST_STAGE)
        if base not in (*METHODS, PEFT) and name not in _WHOLE:
            known = [*_WHOLE, *METHODS, PEFT, f"lora{LAST_STAGE}"]
            raise InputError(f"--methods: no method '{name}'{did_you_mean(name, known)}; there are {some(known, 16)}")
        settings = given.split("+") if given else []
        if wrong := [setting for setting in settings if not re.fullmatch(r"[\w.]+=.+", setting)]:
            raise InputError(f"--methods {word}: '{wrong[0]}' is no setting; write name=value, such as init=pissa")
        extra = tuple(setting if "." in setting.partition("=")[0] else f"lora.{setting}" for setting in settings)
        ranked = base == PEFT or (base in METHODS and method_of(base).has_rank)
        if at and not (ranked and own.isdecimal() and int(own)):
            why = "give a whole number of at least 1" if ranked else f"{name} has no rank"
            raise InputError(f"--methods {word}: '@{own}' is no rank; {why}")
        plain = word.replace(f"@{own}", "", 1) if at else word
        variants += [Variant(plain, base, rank, extra) for rank in ([int(own)] if at else ranks if ranked else [None])]
    slugs = Counter(variant.slug for variant in variants)
    if twice := [variant.label for variant in variants if slugs[variant.slug] > 1]:
        raise InputError(f"--methods: {twice[0]} is there twice")
    return variants


def with_method(config: RunConfig, variant: Variant, built: Built) -> RunConfig:
    """The config with the method's settings; ``alpha`` keeps its ratio to the rank, so that updates stay as large.

    Args:
        config: of a run.
        variant: the method.
        built: a model of this config, plain; it is only looked at.

    Raises:
        InputError: the method can't be had with this model, or a setting is wrong.
    """
    method = "lora" if variant.peft else variant.base
    overrides = list(_WHOLE.get(variant.base, ["train.method=lora", f"lora.method={method}"]))
    if variant.rank is not None:
        assert config.lora.rank != "auto"
        alpha = config.lora.alpha / config.lora.rank * variant.rank
        overrides += [f"lora.rank={variant.rank}", f"lora.alpha={alpha!r}"]
    if variant.base == NORM:
        trains = config.lora.for_model(built.head, []).unfreeze or []
        overrides.append(f"lora.unfreeze={json.dumps([*trains, 'norms'])}")
    try:
        changed = _changed(config, [*overrides, *variant.extra])
        if variant.last_stage:
            changed = _changed(changed, [f"lora.targets={json.dumps(_last_stage(changed, built))}", "lora.exclude=[]"])
    except InputError as error:
        raise InputError(f"--methods {variant.word}: {error}") from error
    return changed


def _changed(config: RunConfig, overrides: list[str]) -> RunConfig:
    return check_config(parse_overrides(config.model_dump(mode="json"), overrides))


def _last_stage(config: RunConfig, built: Built) -> list[str]:
    """Of the layers that the config adapts, those in the last quarter, rounded up, of the model's numbered parts:
    ``layer4`` of a ResNet, ``blocks.9`` to ``blocks.11`` of a ViT.
    """
    targets, _, _ = resolve(built.model, config.lora.for_model(built.head, built.unused))
    places = {target: place for target in targets if (place := numbered(target.path))}
    if not places:
        raise InputError("the model has no numbered stages or blocks; name layers with lora.targets instead")
    family, _ = Counter(family for family, _ in places.values()).most_common(1)[0]
    numbers = sorted({number for own, number in places.values() if own == family})
    last = set(numbers[-math.ceil(len(numbers) / 4) :])
    chosen = [target for target, (own, number) in places.items() if own == family and number in last]
    return list(dict.fromkeys(f"{t.path}:{t.parts}" if t.parts else t.path for t in chosen))
