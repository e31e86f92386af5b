"""Classifiers by name: shapes, heads, input sizes, and names that nobody knows."""

from typing import Any

import pytest
import timm
import torch
import torchvision

from visionlora.errors import InputError
from visionlora.models.classifier import create_classifier

DATA_CONFIG = {"input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"}

MODELS = {
    "test_vit": ["head"],
    "test_resnet": ["fc"],
    "test_efficientnet": ["classifier"],
    "test_convnext": ["head.fc"],
    "test_byobnet.r160_in1k": ["head.fc"],
    "mobilenet_v3_small": ["classifier.3"],
    "torchvision/shufflenet_v2_x0_5": ["fc"],
    "torchvision/squeezenet1_1": ["classifier.1"],
    "torchvision/mnasnet0_5": ["classifier.1"],
}


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        create_classifier(*arguments, **{"pretrained": False, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_one_score_per_class_and_names_its_head(name: str) -> None:
    created = create_classifier(name, 3, pretrained=False, img_size=(64, 64))
    assert created.head == MODELS[name]
    assert created.data_config.keys() >= DATA_CONFIG
    assert created.data_config["input_size"] == (3, 64, 64)
    logits = created.model.eval()(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 3)
    head = created.model.get_submodule(created.head[0])
    head.bias.data += torch.tensor([1.0, 2.0, 3.0])  # type: ignore[operator, union-attr]
    assert not torch.equal(created.model(torch.zeros(2, 3, 64, 64)), logits)
    assert created.model.get_submodule(created.head[0]).weight.shape[0] == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["test_vit", "torchvision/shufflenet_v2_x0_5"])
def test_a_model_is_made_in_training_mode_with_everything_trainable(name: str) -> None:
    model = create_classifier(name, 3, pretrained=False).model
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_checking_the_size_leaves_batchnorm_as_it_was() -> None:
    state = create_classifier("test_resnet", 3, pretrained=False).model.state_dict()
    assert all(not value.any() for key, value in state.items() if key.endswith("running_mean"))


def test_a_name_in_both_libraries_is_timms_unless_it_says_torchvision() -> None:
    assert isinstance(create_classifier("resnet18", 2, pretrained=False).model, timm.models.ResNet)
    created = create_classifier("torchvision/resnet18", 2, pretrained=False)
    assert isinstance(created.model, torchvision.models.ResNet)


def test_torchvisions_data_config_is_that_of_its_weights() -> None:
    config = create_classifier("torchvision/mobilenet_v3_small", 2, pretrained=False).data_config
    assert config == {
        "input_size": (3, 224, 224),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear",
        "crop_pct": 224 / 256,
        "crop_mode": "center",
    }


def test_entries_of_the_data_config_can_be_replaced() -> None:
    plain = create_classifier("test_vit", 2, pretrained=False).data_config
    replaced = {"mean": (0.1, 0.2, 0.3), "std": None, "interpolation": "bilinear", "crop_pct": None}
    config = create_classifier("test_vit", 2, pretrained=False, data_config=replaced).data_config
    assert config == {**plain, "mean": (0.1, 0.2, 0.3), "interpolation": "bilinear"}


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_dropout_before_the_head_and_stochastic_depth_arrive(name: str) -> None:
    model = create_classifier(name, 2, pretrained=False, drop_rate=0.3, drop_path_rate=0.2).model
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.3 in rates | {getattr(model, "drop_rate", 0.0)}
    depths = [float(module.drop_prob or 0) for module in model.modules() if type(module).__name__ == "DropPath"]
    assert max(depths) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["torchvision/googlenet", "torchvision/inception_v3"])
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_auxiliary_heads_are_gone_so_that_training_answers_one_tensor(name: str) -> None:
    created = create_classifier(name, 3, pretrained=False, img_size=(96, 96))
    assert created.head == ["fc"]
    assert created.model.train()(torch.randn(2, 3, 96, 96)).shape == (2, 3)
    assert not [key for key in created.model.state_dict() if key.startswith(("aux", "Aux"))]


def test_a_distilled_transformer_has_two_heads() -> None:
    created = create_classifier("deit_tiny_distilled_patch16_224", 3, pretrained=False, img_size=(32, 32))
    assert created.head == ["head", "head_dist"]
    assert created.model.head_dist.weight.shape[0] == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (16, 64)])
def test_a_transformer_is_built_for_the_size_asked_for(size: tuple[int, int]) -> None:
    created = create_classifier("test_vit", 3, pretrained=False, img_size=size)
    assert created.model.pos_embed.shape[1] == 1 + size[0] * size[1] // 256  # type: ignore[union-attr, operator]
    assert created.model(torch.randn(2, 3, *size)).shape == (2, 3)


def test_torchvisions_transformer_is_built_for_the_size_asked_for() -> None:
    created = create_classifier("torchvision/vit_b_32", 3, pretrained=False, img_size=(64, 64))
    assert created.model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_vit", (33, 33)),
        ("test_vit", (8, 8)),
        ("torchvision/squeezenet1_1", (8, 8)),
        ("xcit_nano_12_p16_224", (50, 50)),
        ("gcvit_xxtiny", (20, 20)),
        ("torchvision/vit_b_32", (65, 65)),
        ("torchvision/vit_b_32", (64, 96)),
    ],
)
def test_an_impossible_input_size_is_told_in_one_line(name: str, size: tuple[int, int]) -> None:
    line = refusal(name, 3, img_size=size)
    assert "model.img_size" in line
    assert str(size[0]) in line


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnett50", "resnet50"),
        ("VIT_Tiny_Patch16_224", "vit_tiny_patch16_224"),
        ("shufflenet_v2_x0_6", "shufflenet_v2_x0_5"),
        ("torchvision/resnet19", "torchvision/resnet18"),
        ("timm/resnet18", "resnet18"),
        ("test_vit.r160_in1kk", "test_vit.r160_in1k"),
    ],
)
def test_an_unknown_name_shows_the_nearest(name: str, nearest: str) -> None:
    line = refusal(name, 3)
    assert name in line
    assert f"did you mean '{nearest}'?" in line


@pytest.mark.parametrize("name", ["", "zzzzzz", "torchvision/", "fasterrcnn_resnet50_fpn", "torchvision/raft_small"])
def test_a_name_of_no_classifier_is_refused(name: str) -> None:
    assert f"unknown model '{name}'" in refusal(name, 3)


def test_torchvisions_models_refuse_settings_that_they_do_not_have() -> None:
    assert "model.drop_path_rate" in refusal("torchvision/shufflenet_v2_x0_5", 3, drop_path_rate=0.1)


def test_a_setting_that_a_timm_model_does_not_have_is_named() -> None:
    assert "model.drop_path_rate=0.1" in refusal("vgg11", 3, drop_path_rate=0.1)


@pytest.mark.parametrize(
    "error", [OSError("Name or service not known\nlong story"), RuntimeError("No pretrained weights exist")]
)
def test_weights_that_cannot_be_fetched_are_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def offline(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    line = refusal("test_vit", 3, pretrained=True)
    assert "could not be fetched" in line
    assert "model.checkpoint" in line
    assert "model.pretrained=false" in line
    assert "long story" not in line


def test_torchvisions_weights_that_cannot_be_fetched_are_told_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    line = refusal("torchvision/shufflenet_v2_x0_5", 3, pretrained=True)
    assert "could not be fetched (OSError: Name or service not known)" in line
    assert "model.checkpoint" in line


def test_a_local_folder_that_is_not_there_is_told() -> None:
    assert "can't be created" in refusal("local-dir:/no/such/folder", 3)
