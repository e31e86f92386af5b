"""What a comparison is asked for, in words."""

from collections.abc import Callable

import pytest

from visionlora.config import check_config
from visionlora.errors import InputError
from visionlora.studies.methods import parse_methods
from visionlora.studies.plan import Budget, Plan, parse_budget, parse_list, parse_ranks, parse_shots


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("500steps", Budget(steps=500)),
        ("1 step", Budget(steps=1)),
        ("10min", Budget(seconds=600)),
        ("1.5h", Budget(seconds=5400)),
        ("90s", Budget(seconds=90)),
    ],
)
def test_budgets(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


def test_a_budget_is_whole_epochs() -> None:
    assert Budget(steps=10).epochs(3, 99.0, "") == 3
    assert Budget(seconds=10).epochs(3, 0.5, "") == 6
    with pytest.raises(InputError, match=r"--budget 2 steps: lora: one epoch takes 3 steps; give more"):
        Budget(steps=2).epochs(3, 1.0, "lora:")
    with pytest.raises(
        InputError, match=r"--budget 1 s of training: lora: one epoch takes 3 steps of 0.5 s, 1.5 s in all"
    ):
        Budget(seconds=1).epochs(3, 0.5, "lora:")


def test_lists() -> None:
    assert parse_shots("all,20, 5") == (5, 20, None)
    assert parse_ranks("8,4") == (4, 8)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (parse_budget, "500", "give steps or training time"),
        (parse_budget, "0min", "give steps or training time"),
        (parse_budget, "1.2.3s", "give steps or training time"),
        (parse_budget, "1.5steps", "a whole number of steps"),
        (parse_shots, "5,some", "'some' is no whole number"),
        (parse_shots, "5,5", "has a value twice"),
        (parse_ranks, "0", "'0' is no whole number of at least 1"),
        (parse_ranks, " , ", "--ranks is empty"),
        (lambda text: parse_list(text, "--methods", str), "lora,lora", "--methods lora,lora: has a value twice"),
    ],
)
def test_what_can_not_be_read_is_refused(read: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(text)


@pytest.mark.parametrize("train", [{"batch_size": "auto"}, {"devices": 2}])
def test_what_would_not_be_the_same_for_all_is_refused(train: dict[str, object]) -> None:
    config = check_config({"model": {"name": "test_vit"}, "data": {"root": "."}, "train": train})
    with pytest.raises(InputError, match="train.batch_size|train.devices"):
        Plan(config, tuple(parse_methods(["full"], [])), (None,), Budget(steps=1), 1)
