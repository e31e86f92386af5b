"""Words of other libraries get an answer in ours."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

import visionlora as vl


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"r": 8}, "unknown LoRA setting 'r'; here it is 'rank'"),
        ({"rank": 4, "lora_alpha": 8}, "unknown LoRA setting 'lora_alpha'; here it is 'alpha'"),
        ({"target_modules": ["qkv"]}, "here it is 'targets'"),
        ({"modules_to_save": ["head"]}, "here it is 'unfreeze'"),
        ({"lora_dropout": 0.1}, "leave it out"),
        ({"use_rslora": True}, "method='rslora'"),
        ({"rnak": 4}, "unknown LoRA setting 'rnak' (did you mean 'rank'?)"),
        ({"something": 4}, "unknown LoRA setting 'something'"),
    ],
)
def test_settings_of_peft_are_answered_with_ours(settings: dict[str, Any], answer: str) -> None:
    for make in (lambda: vl.LoRAConfig(**settings), lambda: vl.LoRAConfig.from_dict(settings)):
        with pytest.raises(vl.InputError) as error:
            make()
        assert answer in str(error.value) and "\n" not in str(error.value)


def test_a_config_is_still_a_plain_dataclass() -> None:
    config = vl.LoRAConfig(4, 8.0, targets=["a"])
    assert config == vl.LoRAConfig(rank=4, alpha=8.0, targets=["a"]) == vl.LoRAConfig.from_dict(config.to_dict())
    assert replace(config, rank=2).rank == 2
    assert copy.deepcopy(config) == config == pickle.loads(pickle.dumps(config))


def test_names_of_adapters_may_come_in_any_collection() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    vl.attach(model, name="a")
    vl.attach(model, name="b")
    assert model[0].adapters.active == {"b": 1}
    vl.activate(model, {"a": 0.5}.keys())
    assert model[0].adapters.active == {"a": 1}
