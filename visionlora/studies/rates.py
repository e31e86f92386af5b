"""The learning rates of each method, by short runs on what is held out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from visionlora.sections import RunConfig
from visionlora.studies.folder import OUTCOMES, RATES
from visionlora.studies.methods import Variant
from visionlora.studies.plan import Plan, shots_word
from visionlora.studies.runs import Outcome, run_cell
from visionlora.studies.search import Found, Quality, Rates, search
from visionlora.studies.settings import config_of_run, with_data
from visionlora.studies.side_by_side import side_by_side
from visionlora.studies.study import Study, score_word


@dataclass(frozen=True)
class _Tried:
    """A run of a search: its number there, its learning rates, what it came to, and its seconds."""

    number: int
    rates: Rates
    outcome: Outcome
    seconds: float


def search_rates(study: Study, steps_per_epoch: int) -> dict[Variant, Found]:
    """The learning rates of each method; an epoch without what is held out has so many steps."""
    plan = study.plan

    def tell(variant: Variant, tried: _Tried) -> None:
        study.left.took(f"{variant.slug} {tried.number}", tried.seconds / plan.jobs)
        came_to = score_word(f"held-out {study.score}", tried.outcome)
        study.say(f"{study.left}{variant.label}, learning rate {_rate_word(variant, tried.rates)}: {came_to}")

    def tell_at_once(variant: Variant, tried: _Tried) -> None:
        tell(variant, tried)
        study.stop()

    calls = {}
    for variant, own in study.configs.items():
        seconds = study.trials[variant].step_seconds
        count = plan.budget.epochs(steps_per_epoch, seconds, f"{variant.label}:")
        tried = with_data(own, plan.shots[-1], True)
        note = partial(tell_at_once, variant) if plan.jobs == 1 else None
        calls[variant] = partial(_search_one, plan, variant, tried, count, study.score, seconds, note)
    rates = {}
    for variant, (found, noted), _ in side_by_side(calls, plan.jobs, study.console, study.stop):
        rates[variant] = found
        for each in noted:
            tell(variant, each)
    return rates


def _rate_word(variant: Variant, rates: Rates) -> str:
    head = f"{rates.head_lr:.2g}"
    return head if variant.one_rate else f"{rates.lr:.2g}, head {head}"


def _search_one(
    plan: Plan,
    variant: Variant,
    config: RunConfig,
    epochs: int,
    score: str,
    step_seconds: float,
    note: Callable[[_Tried], None] | None,
    console: Console,
) -> tuple[Found, list[_Tried]]:
    """The learning rates that do best on what is held out, and what nobody has noted yet."""
    noted: list[_Tried] = []
    note = note or noted.append
    number = 0

    def quality_of(factors: Rates) -> Quality | None:
        nonlocal number
        times = f"{factors.lr:.3g}" if factors.lr == factors.head_lr else f"{factors.lr:.3g}-{factors.head_lr:.3g}"
        name = f"{variant.slug}_{shots_word(plan.shots[-1])}_x{times}"
        rates = _times(config, factors)
        own = config_of_run(config, plan.config.out / RATES / name, epochs, plan.first_seed, rates, epochs)
        file = plan.config.out / OUTCOMES / f"rate_{name}.json"
        started = time.perf_counter()
        outcome = run_cell(own, variant, file, score, step_seconds, console, weights=False)
        note(_Tried(number, rates, outcome, time.perf_counter() - started))
        number += 1
        return outcome.quality

    found = search(quality_of, plan.apart(variant))
    tried = {_times(config, factors): quality for factors, quality in found.tried.items()}
    return Found(_times(config, found.best), tried, found.at_edge), noted


def _times(config: RunConfig, factors: Rates) -> Rates:
    """The config's learning rates times these, to six digits."""
    lr, head_lr = config.train.lr * factors.lr, config.train.head_lr * factors.head_lr
    return Rates(float(f"{lr:.6g}"), float(f"{head_lr:.6g}"))
