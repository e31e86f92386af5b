"""Methods compared on one's own data: each at the same budget, each with a learning rate of its own."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from visionlora.errors import InputError, printable
from visionlora.sections import RunConfig
from visionlora.stopping import Interrupted, stop_requests
from visionlora.studies.comparison import Comparison, Ran
from visionlora.studies.folder import OUTCOMES, RUNS, TRIALS, keep_plan, opened
from visionlora.studies.methods import FULL, Variant, with_method
from visionlora.studies.peft import peft_to_try, refuse_without_peft
from visionlora.studies.plan import Cell, Plan, Shots, shots_word
from visionlora.studies.rates import search_rates
from visionlora.studies.runs import Outcome, kept, run_cell
from visionlora.studies.search import Found, fewest_runs
from visionlora.studies.settings import config_of_run, with_data
from visionlora.studies.side_by_side import side_by_side
from visionlora.studies.study import Say, Study, score_word
from visionlora.studies.time_left import TimeLeft
from visionlora.studies.trial import Trial, try_out
from visionlora.tasks.base import SetUp
from visionlora.tasks.registry import task_of
from visionlora.training.loop import steps_per_epoch
from visionlora.training.resuming import data_fingerprint
from visionlora.training.run import measures_statistics, monitored, pick_device, run_to_try


@dataclass(frozen=True)
class _Data:
    """The images of some number of labels."""

    steps_per_epoch: int
    images: int


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
    data = {shots: _look_at(with_data(config, shots, False)) for shots in plan.shots}
    searched = with_data(config, plan.shots[-1], True)
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
    study = Study(plan, score, configs, trials, left, console, say, stop)
    rates = search_rates(study, held_out.steps_per_epoch)
    outcomes = _train_all(study, rates, epochs)
    runs = []
    for cell in plan.cells():
        count, on = epochs[cell.variant, cell.shots], data[cell.shots]
        steps = count * on.steps_per_epoch
        runs.append(Ran(cell, outcomes[cell], rates[cell.variant].best, count, steps, on.images))
    return Comparison(
        plan,
        score,
        len(whole.val),
        held_out.images,
        {variant.label: trial for variant, trial in trials.items()},
        {variant.label: found for variant, found in rates.items()},
        runs,
    )


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


def _train_all(study: Study, rates: dict[Variant, Found], epochs: dict[Any, int]) -> dict[Cell, Outcome]:
    """Every run of the comparison."""
    plan, calls = study.plan, {}
    for cell in plan.cells():
        count = epochs[cell.variant, cell.shots]
        own, folder = with_data(study.configs[cell.variant], cell.shots, False), plan.config.out / RUNS / cell.name
        every = -(-count // plan.evaluations)
        own = config_of_run(own, folder, count, cell.seed, rates[cell.variant].best, every)
        file = plan.config.out / OUTCOMES / f"{cell.name}.json"
        calls[cell] = partial(run_cell, own, cell.variant, file, study.score, study.trials[cell.variant].step_seconds)
    outcomes = {}
    for cell, outcome, seconds in side_by_side(calls, plan.jobs, study.console, study.stop):
        outcomes[cell] = outcome
        study.left.took(cell.name, seconds / plan.jobs)
        came_to = score_word(study.score, outcome)
        study.say(f"{study.left}{cell.variant.label}, {shots_word(cell.shots)}, seed {cell.seed}: {came_to}")
    return outcomes


def _seconds(epochs: dict[Any, int], data: dict[Shots, _Data], trials: dict[Variant, Trial], cell: Cell) -> float:
    steps = epochs[cell.variant, cell.shots] * data[cell.shots].steps_per_epoch
    return steps * trials[cell.variant].step_seconds
