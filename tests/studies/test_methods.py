"""Words for methods, and the settings that they stand for."""

from pathlib import Path

import pytest
from torch import nn

from visionlora.config import check_config
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.studies.methods import Variant, parse_methods, with_method
from visionlora.tasks.base import SetUp
from visionlora.tasks.registry import task_of
from visionlora.training.run import prepare


def config_of(model: str, **lora: object) -> RunConfig:
    return check_config(
        {"model": {"name": model, "pretrained": False}, "data": {"root": "."}, "lora": {"rank": 8, "alpha": 24, **lora}}
    )


def labels(words: list[str], ranks: list[int]) -> list[str]:
    return [variant.label for variant in parse_methods(words, ranks)]


def test_ranks_are_of_the_methods_that_have_one() -> None:
    assert labels(["frozen", "lora", "ia3", "full"], [4, 16]) == [
        "frozen",
        "lora, rank 4",
        "lora, rank 16",
        "ia3",
        "full",
    ]
    slugs = [variant.slug for variant in parse_methods(["lora:init=pissa", "lora-last-stage", "scratch"], [4])]
    assert slugs == ["lora-init=pissa-r4", "lora-last-stage-r4", "scratch"]


def test_a_rank_of_its_own_is_in_the_word() -> None:
    words = ["lora", "loha@2", "lora-last-stage@16", "lora@3:init=pissa+train.lora_plus=4"]
    assert labels(words, [4, 8]) == [
        "lora, rank 4",
        "lora, rank 8",
        "loha, rank 2",
        "lora-last-stage, rank 16",
        "lora:init=pissa+train.lora_plus=4, rank 3",
    ]
    assert parse_methods(["loha@2"], [4]) == parse_methods(["loha"], [2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lorra"], r"no method 'lorra' \(did you mean 'lora'\?\)"),
        (["full-last-stage"], "no method 'full-last-stage'"),
        (["lora:pissa"], "'pissa' is no setting; write name=value"),
        (["lora", "dora", "lora"], "lora, rank 4 is there twice"),
        (["lora", "lora@4"], "lora, rank 4 is there twice"),
        (["lora@0"], "'@0' is no rank; give a whole number"),
        (["lora@"], "'@' is no rank; give a whole number"),
        (["full@4"], "'@4' is no rank; full has no rank"),
    ],
)
def test_what_is_no_method_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_methods(words, [4])


def trains(word: str, config: RunConfig, rank: int = 4) -> tuple[RunConfig, nn.Module]:
    """The method's config, and a model that it has prepared."""
    (variant,) = parse_methods([word], [rank])
    task = task_of("classification")
    own = with_method(config, variant, task.build(config.model, ["a", "b"]))
    model = task.build(own.model, ["a", "b"])
    nothing: object = None
    prepare(own, SetUp(model, ["a", "b"], nothing, nothing, nothing, own.model, ""))  # type: ignore[arg-type]
    return own, model.model


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_what_trains_is_what_the_word_says() -> None:
    config = config_of("test_resnet")
    assert trainable(trains("frozen", config)[1]) == {"fc.weight", "fc.bias"}
    _, model = trains("norm", config)
    assert {"bn1.weight", "bn1.bias", "fc.weight"} < trainable(model)
    assert [name for name, each in model.named_parameters() if each.requires_grad and each.ndim > 1] == ["fc.weight"]
    assert all(parameter.requires_grad for parameter in trains("full", config)[1].parameters())
    lora, model = trains("lora", config)
    assert (lora.lora.rank, lora.lora.alpha) == (4, 12)  # alpha / rank stays
    assert {name for name in trainable(model) if "lora_" not in name} == {"fc.weight", "fc.bias"}
    pissa, _ = trains("lora:init=pissa+train.lora_plus=4", config)
    assert (pissa.lora.init, pissa.train.lora_plus) == ("pissa", 4)


def test_scratch_has_no_weights_to_start_from() -> None:
    config = config_of("test_vit")
    plain = task_of("classification").build(config.model, ["a", "b"])
    weights = {"pretrained": True, "checkpoint": Path("weights.safetensors"), "sha256": "0" * 64}
    config = config.model_copy(update={"model": config.model.model_copy(update=weights)})
    own = with_method(config, Variant("scratch", "scratch"), plain)
    assert (own.model.pretrained, own.model.checkpoint, own.model.sha256) == (False, None, None)
    assert own.train.method == "full"


@pytest.mark.parametrize(
    ("model", "stage"),
    [
        ("test_resnet", {"layer4"}),
        ("test_efficientnet", {"blocks.3", "blocks.4"}),
        ("test_vit", {"blocks.4", "blocks.5"}),
        ("test_convnext", {"stages.3"}),
    ],
)
def test_the_last_stage_is_the_last_quarter_of_the_numbered_parts(model: str, stage: set[str]) -> None:
    _, adapted = trains("lora-last-stage", config_of(model))
    depth = len(next(iter(stage)).split("."))
    found = {".".join(name.split(".")[:depth]) for name in trainable(adapted) if "lora_" in name}
    assert found == stage


def test_parts_of_a_fused_projection_stay_parts() -> None:
    own, _ = trains("lora-last-stage", config_of("test_vit", targets=["attn.qkv:q,v"]))
    assert own.lora.targets and all(str(target).endswith("attn.qkv:q,v") for target in own.lora.targets)


def test_a_setting_that_is_none_names_its_method() -> None:
    config = config_of("test_vit")
    (variant,) = parse_methods(["lora:innit=pissa"], [4])
    with pytest.raises(InputError, match=r"--methods lora:innit=pissa: .*init"):
        with_method(config, variant, task_of("classification").build(config.model, ["a", "b"]))
