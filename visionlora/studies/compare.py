"""Methods compared on one's own data: each at the same budget, each with a learning rate of its own."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from visionlora.errors import InputError, printable
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted, stop_requests
from visionlora.studies.folder import OUTCOMES, RATES, RUNS, TRIALS, keep_plan, opened
from visionlora.studies.methods import FULL, Variant, with_method
from visionlora.studies.peft import peft_to_try, refuse_without_peft
from visionlora.studies.plan import Cell, Plan, Shots, shots_word
from visionlora.studies.runs import Outcome, kept, run_cell
from visionlora.studies.search import Found, Quality, Rates, fewest_runs, search
from visionlora.studies.side_by_side import side_by_side
from visionlora.studies.time_left import TimeLeft
from visionlora.studies.trial import Trial, try_out
from visionlora.tasks.base import SetUp
from visionlora.tasks.registry import task_of
from visionlora.training.loop import steps_per_epoch
from visionlora.training.resuming import data_fingerprint
from visionlora.training.run import measures_statistics, monitored, pick_device, run_to_try

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ran:
    """A run of the comparison, and with what it was trained; ``rates`` are the learning rates themselves."""

    cell: Cell
    outcome: Outcome
    rates: Rates
    epochs: int
    steps: int
    images: int


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured.

    Attributes:
        plan: what was asked for.
        score: the name of the one that is compared.
        tested: images that it was measured on.
        held_out: images that learning rates were chosen on.
        trials: what a step of each method costs, by its label.
        rates: the learning rates that each search tried, likewise.
        runs: in the order of ``Plan.cells``.
    """

    plan: Plan
    score: str
    tested: int
    held_out: int
    trials: dict[str, Trial]
    rates: dict[str, Found]
    runs: list[Ran]


@dataclass(frozen=True)
class _Data:
    """The images of some number of labels."""

    steps_per_epoch: int
    images: int


@dataclass(frozen=True)
class _Study:
    """A study at work: what was asked, what is known of it, and whom to tell."""

    plan: Plan
    score: str
    configs: dict[Variant, RunConfig]
    trials: dict[Variant, Trial]
    left: TimeLeft
    console: Console
    say: Say
    stop: Callable[[], None]


@dataclass(frozen=True)
class _Tried:
    """A run of a search: its number there, its learning rates, what it came to, and its seconds."""

    number: int
    rates: Rates
    outcome: Outcome
    seconds: float


def compare(plan: Plan, resume: bool = False, console: Console | None = None) -> Comparison:
    """Try every method out, choose its learning rate, train all runs, one after another, and keep what they came to.

    What is done is in files of the study's folder, and is not done again: a study that was stopped at any moment goes
    on with ``resume``, in the middle of its last run. More methods, ranks, labels and seeds may be asked for then.

    Learning rates are chosen on images held out of the training images (``data.hold_out``), with the most labels and
    the first seed. The score of a run is its last epoch's, on the images that the config validates on; nothing is
    chosen by it.

    Raises:
        InputError: the folder is not empty, or holds another study; a method does not apply; the budget is less than
            an epoch; anything that a run refuses.
        visionlora.stopping.Interrupted: Ctrl+C, SIGTERM or SIGHUP; the run that was at work has a checkpoint.
    """
    console = console or Console()

    def say(text: str) -> None:
        console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    with opened(plan, resume) as note:
        if note:
            say(note)
        with stop_requests() as asked, _light_collections():
            return _compare(plan, console, say, lambda: _answer(asked()))


@contextmanager
def _light_collections() -> Iterator[None]:
    """Have the garbage collections between runs pass over what was there before the study: mostly modules."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _answer(number: int) -> None:
    """End the study if a signal has asked for that."""
    if number:
        raise Interrupted("between two runs", number)


def _compare(plan: Plan, console: Console, say: Say, stop: Callable[[], None]) -> Comparison:
    config = plan.config
    if any(variant.peft for variant in plan.variants):
        refuse_without_peft()
    task = task_of(config.task)
    whole: SetUp = task.set_up(config)
    keep_plan(plan, data_fingerprint(task, whole))
    score = monitored(config, whole, pick_device(config.train.device))
    say(f"{whole.description}; compared by {score}")
    configs = {variant: with_method(config, variant, whole.built) for variant in plan.variants}
    data = {shots: _look_at(_with_data(config, shots, False)) for shots in plan.shots}
    searched = _with_data(config, plan.shots[-1], True)
    held = task.set_up(searched)
    held_out = _Data(steps_per_epoch(held.training, config.train), len(held.val))
    del held
    trials = {}
    for variant, own in configs.items():
        trials[variant] = _trial(plan, variant, own)
        say(f"{variant.label}: {trials[variant]}")
        stop()
    epochs = {
        (variant, shots): plan.budget.epochs(
            data[shots].steps_per_epoch, trials[variant].step_seconds, f"{variant.label}, {shots_word(shots)}:"
        )
        for variant in plan.variants
        for shots in plan.shots
    }
    left = TimeLeft(
        {cell.name: _seconds(epochs, data, trials, cell) for cell in plan.cells()}
        | {
            f"{v.slug} {n}": _seconds(epochs, data, trials, Cell(v, plan.shots[-1], 0))
            for v in trials
            for n in range(fewest_runs(plan.apart(v)))
        }
    )
    study = _Study(plan, score, configs, trials, left, console, say, stop)
    rates = _search_rates(study, held_out)
    outcomes = _train_all(study, rates, epochs)
    runs = []
    for cell in plan.cells():
        count, on = epochs[cell.variant, cell.shots], data[cell.shots]
        steps = count * on.steps_per_epoch
        chosen = _rates(configs[cell.variant], rates[cell.variant].best)
        runs.append(Ran(cell, outcomes[cell], chosen, count, steps, on.images))
    return Comparison(
        plan,
        score,
        len(whole.val),
        held_out.images,
        {variant.label: trial for variant, trial in trials.items()},
        {variant.label: _as_rates(configs[variant], rate) for variant, rate in rates.items()},
        runs,
    )


def _with_data(config: RunConfig, shots: Shots, hold_out: bool) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"shots": shots, "hold_out": hold_out})})


def _rates(config: RunConfig, factors: Rates) -> Rates:
    """Learning rates: the config's, times these."""
    return Rates(config.train.lr * factors.lr, config.train.head_lr * factors.head_lr)


def _as_rates(config: RunConfig, found: Found) -> Found:
    """What a search came to, in learning rates."""
    tried = {_rates(config, factors): quality for factors, quality in found.tried.items()}
    return Found(_rates(config, found.best), tried, found.at_edge)


def _rate_word(variant: Variant, rates: Rates) -> str:
    head = f"{rates.head_lr:.2g}"
    return head if variant.one_rate else f"{rates.lr:.2g}, head {head}"


def _trained(config: RunConfig, out: Path, epochs: int, seed: int, factors: Rates, every: int) -> RunConfig:
    """The config of a run: rates times ``factors``, and the warm-up's share of all epochs as it was."""
    train, rates = config.train, _rates(config, factors)
    changed = {
        "epochs": epochs,
        "warmup_epochs": train.warmup_epochs / train.epochs * epochs,
        "lr": rates.lr,
        "head_lr": rates.head_lr,
        "seed": seed,
        "evaluate_every": every,
        "patience": 0,
        "keep": "last",
        "retain": None,
        "cache_features": False,
    }
    return config.model_copy(update={"train": train.model_copy(update=changed), "out": out})


def _look_at(config: RunConfig) -> _Data:
    """How many images and steps there are, as ``config`` has its data."""
    setup: SetUp = task_of(config.task).set_up(config)
    steps = steps_per_epoch(setup.training, config.train)
    return _Data(steps, len(setup.train) if setup.train is not None else steps * config.train.batch_size)


def _trial(plan: Plan, variant: Variant, config: RunConfig) -> Trial:
    def make() -> Trial:
        try:
            device = pick_device(config.train.device)
            state, note = peft_to_try(config, device) if variant.peft else (run_to_try(config, device), "")
            if variant.base == FULL and measures_statistics(state.model) is not None:
                note = f"measures BatchNorm's statistics anew; {FULL}:train.freeze_batchnorm=true keeps the base's"
            return try_out(state, note)
        except InputError as error:
            raise InputError(f"--methods {variant.word}: {error}") from error

    return kept(plan.config.out / TRIALS / f"{variant.slug}.json", make, lambda values: Trial(**values))


def _search_rates(study: _Study, held_out: _Data) -> dict[Variant, Found]:
    """The learning rates of each method."""
    plan = study.plan

    def tell(variant: Variant, tried: _Tried) -> None:
        study.left.took(f"{variant.slug} {tried.number}", tried.seconds / plan.jobs)
        told = _told(f"held-out {study.score}", tried.outcome)
        study.say(f"{study.left}{variant.label}, learning rate {_rate_word(variant, tried.rates)}: {told}")

    def tell_at_once(variant: Variant, tried: _Tried) -> None:
        tell(variant, tried)
        study.stop()

    calls = {}
    for variant, own in study.configs.items():
        seconds = study.trials[variant].step_seconds
        count = plan.budget.epochs(held_out.steps_per_epoch, seconds, f"{variant.label}:")
        tried = _with_data(own, plan.shots[-1], True)
        note = partial(tell_at_once, variant) if plan.jobs == 1 else None
        calls[variant] = partial(_rate, plan, variant, tried, count, study.score, seconds, note)
    rates = {}
    for variant, (found, noted), _ in side_by_side(calls, plan.jobs, study.console, study.stop):
        rates[variant] = found
        for each in noted:
            tell(variant, each)
    return rates


def _rate(
    plan: Plan,
    variant: Variant,
    config: RunConfig,
    epochs: int,
    score: str,
    step_seconds: float,
    note: Callable[[_Tried], None] | None,
    console: Console,
) -> tuple[Found, list[_Tried]]:
    """The factors of the config's learning rates that do best on what is held out, and what nobody has noted yet."""
    noted: list[_Tried] = []
    note = note or noted.append
    number = 0

    def quality_of(factors: Rates) -> Quality | None:
        nonlocal number
        times = f"{factors.lr:.3g}" if factors.lr == factors.head_lr else f"{factors.lr:.3g}-{factors.head_lr:.3g}"
        name = f"{variant.slug}_{shots_word(plan.shots[-1])}_x{times}"
        own = _trained(config, plan.config.out / RATES / name, epochs, plan.first_seed, factors, epochs)
        file = plan.config.out / OUTCOMES / f"rate_{name}.json"
        started = time.perf_counter()
        outcome = run_cell(own, variant, file, score, step_seconds, console, weights=False)
        note(_Tried(number, _rates(config, factors), outcome, time.perf_counter() - started))
        number += 1
        return outcome.quality

    return search(quality_of, plan.apart(variant)), noted


def _train_all(study: _Study, rates: dict[Variant, Found], epochs: dict[Any, int]) -> dict[Cell, Outcome]:
    """Every run of the comparison."""
    plan, calls = study.plan, {}
    for cell in plan.cells():
        count = epochs[cell.variant, cell.shots]
        own, folder = _with_data(study.configs[cell.variant], cell.shots, False), plan.config.out / RUNS / cell.name
        every = -(-count // plan.evaluations)
        own = _trained(own, folder, count, cell.seed, rates[cell.variant].best, every)
        file = plan.config.out / OUTCOMES / f"{cell.name}.json"
        calls[cell] = partial(run_cell, own, cell.variant, file, study.score, study.trials[cell.variant].step_seconds)
    outcomes = {}
    for cell, outcome, seconds in side_by_side(calls, plan.jobs, study.console, study.stop):
        outcomes[cell] = outcome
        study.left.took(cell.name, seconds / plan.jobs)
        told = _told(study.score, outcome)
        study.say(f"{study.left}{cell.variant.label}, {shots_word(cell.shots)}, seed {cell.seed}: {told}")
    return outcomes


def _seconds(epochs: dict[Any, int], data: dict[Shots, _Data], trials: dict[Variant, Trial], cell: Cell) -> float:
    steps = epochs[cell.variant, cell.shots] * data[cell.shots].steps_per_epoch
    return steps * trials[cell.variant].step_seconds


def _told(score: str, outcome: Outcome) -> str:
    if outcome.score is not None:
        return f"{score} {outcome.score:.4f}"
    return f"diverged ({outcome.failed})" if outcome.failed else f"no {score}: nothing to measure it by"
