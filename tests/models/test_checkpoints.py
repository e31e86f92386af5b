"""Weights from a local file: what is kept bit for bit, and what is refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.vision_transformer import VisionTransformer

from visionlora.errors import InputError
from visionlora.models.classifier import create_classifier

N = 5
"""Classes in the files."""

HEADS = {
    "test_vit": ["head"],
    "test_resnet": ["fc"],
    "test_convnext": ["head.fc"],
    "deit_tiny_distilled_patch16_224": ["head", "head_dist"],
    "torchvision/shufflenet_v2_x0_5": ["fc"],
    "torchvision/squeezenet1_1": ["classifier.1"],
}


def weights(name: str) -> dict[str, Tensor]:
    """Those of a model with N classes, different from what a fresh model has."""
    if name.startswith("torchvision/"):
        model = torchvision.models.get_model(name.removeprefix("torchvision/"), num_classes=N)
    else:
        model = timm.create_model(name, num_classes=N)
    return {key: value.clone().contiguous() for key, value in model.state_dict().items()}


def write(tensors: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in tensors.items()}, "epoch": 3}, path)
    return path


def is_head(key: str, name: str) -> bool:
    return any(key.startswith(f"{head}.") for head in HEADS[name])


def refusal(name: str, checkpoint: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        create_classifier(name, N, checkpoint=checkpoint, **options)
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", HEADS)
def test_with_as_many_classes_everything_is_kept(name: str, suffix: str, tmp_path: Path) -> None:
    tensors = weights(name)
    model = create_classifier(name, N, checkpoint=write(tensors, tmp_path / f"w{suffix}")).model
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", HEADS)
def test_with_other_classes_the_head_is_fresh_and_the_rest_kept(name: str, tmp_path: Path) -> None:
    tensors = weights(name)
    created = create_classifier(name, 3, checkpoint=write(tensors, tmp_path / "w.safetensors"))
    state = created.model.state_dict()
    assert created.head == HEADS[name]
    assert all(torch.equal(state[key], tensors[key]) for key in tensors if not is_head(key, name))
    assert {state[key].shape[0] for key in tensors if is_head(key, name)} == {3}
    assert not any(state[key].any() for key in tensors if is_head(key, name)), "a new head starts at zero"


@pytest.mark.parametrize("classes", [N, 3])
@pytest.mark.parametrize("name", HEADS)
def test_a_file_without_a_head_gets_one_that_starts_at_zero(name: str, classes: int, tmp_path: Path) -> None:
    tensors = {key: value for key, value in weights(name).items() if not is_head(key, name)}
    created = create_classifier(name, classes, checkpoint=write(tensors, tmp_path / "w.safetensors"))
    state = created.model.state_dict()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)
    for head in HEADS[name]:
        weight = state[f"{head}.weight"]
        assert weight.shape[0] == classes
        assert not weight.any() and not state[f"{head}.bias"].any()


def test_weights_of_half_precision_are_loaded_as_float32(tmp_path: Path) -> None:
    tensors = weights("test_resnet")
    half = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    state = create_classifier("test_resnet", N, checkpoint=write(half, tmp_path / "w.safetensors")).model.state_dict()
    assert all(state[key].dtype == tensors[key].dtype for key in tensors)
    assert all(torch.equal(state[key], half[key].to(state[key].dtype)) for key in tensors)


def test_auxiliary_heads_in_a_file_are_left_out(tmp_path: Path) -> None:
    model = torchvision.models.googlenet(num_classes=N, init_weights=False)
    path = write({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.warns(FutureWarning, match="default weight initialization"):
        created = create_classifier("torchvision/googlenet", N, checkpoint=path, img_size=(64, 64))
    assert torch.equal(created.model.fc.weight, model.fc.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (320, 320)])
def test_position_embeddings_are_resampled_for_another_size(size: tuple[int, int], tmp_path: Path) -> None:
    tensors = weights("test_vit")
    # a ramp along the rows survives resampling as a ramp along the rows
    ramp = torch.linspace(-1, 1, 10).repeat_interleave(10).view(1, 100, 1).expand(1, 100, 64)
    tensors["pos_embed"] = torch.cat([tensors["pos_embed"][:, :1], ramp], dim=1)
    path = write(tensors, tmp_path / "w.safetensors")
    model = create_classifier("test_vit", N, checkpoint=path, img_size=size).model.eval()
    rows, columns = size[0] // 16, size[1] // 16
    grid = model.pos_embed[0, 1:, 0].view(rows, columns)  # type: ignore[index, union-attr]
    assert torch.allclose(grid, grid[:, :1].expand_as(grid), atol=1e-5)
    assert (grid[1:, 0] > grid[:-1, 0]).all()
    assert torch.isfinite(model(torch.randn(2, 3, *size))).all()
    state = model.state_dict()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors if key != "pos_embed")


def test_torchvisions_position_embeddings_are_resampled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(weights: None, image_size: int = 224, num_classes: int = 1000) -> VisionTransformer:
        assert weights is None
        return VisionTransformer(image_size, 32, 1, 2, 16, 16, num_classes=num_classes)

    monkeypatch.setattr(torchvision.models, "get_model_builder", lambda _name: small)
    tensors = {key: value.contiguous() for key, value in small(None, num_classes=N).state_dict().items()}
    path = write(tensors, tmp_path / "w.safetensors")
    model = create_classifier("torchvision/vit_b_32", N, checkpoint=path, img_size=(64, 64)).model.eval()
    state = model.state_dict()
    assert state["encoder.pos_embedding"].shape == (1, 5, 16)
    assert torch.isfinite(model(torch.randn(1, 3, 64, 64))).all()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors if key != "encoder.pos_embedding")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("test_vit", "test_resnet"),
        ("test_resnet", "test_vit"),
        ("test_vit2", "test_vit"),
        ("torchvision/squeezenet1_1", "test_resnet"),
        ("test_resnet", "torchvision/shufflenet_v2_x0_5"),
    ],
)
def test_weights_of_another_architecture_are_refused(name: str, other: str, tmp_path: Path) -> None:
    line = refusal(name, write(weights(other), tmp_path / "w.safetensors"))
    assert f"not the weights of {name.removeprefix('torchvision/')}" in line
    assert "missing (" in line


@pytest.mark.parametrize("classes", [N, 3])
@pytest.mark.parametrize("name", ["test_resnet", "torchvision/shufflenet_v2_x0_5"])
def test_a_tensor_too_many_or_too_few_or_of_another_shape_is_named(name: str, classes: int, tmp_path: Path) -> None:
    tensors = weights(name)
    key = next(key for key in tensors if key.endswith("weight"))
    cases = {
        f"1 missing ({key})": {k: v for k, v in tensors.items() if k != key},
        "1 unknown (more.weight)": {**tensors, "more.weight": torch.zeros(2)},
        f"1 of another shape ({key})": {**tensors, key: torch.zeros(7)},
    }
    for words, changed in cases.items():
        path = write(changed, tmp_path / "w.safetensors")
        with pytest.raises(InputError) as caught:
            create_classifier(name, classes, checkpoint=path)
        assert words in str(caught.value)


class RunsCode:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["test_resnet", "torchvision/shufflenet_v2_x0_5"])
def test_a_pickle_with_code_is_refused_and_not_run(name: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "ran", tmp_path / "w.pth"
    torch.save({"fc.weight": RunsCode(trace)}, path)
    assert "could run code" in refusal(name, path)
    path.write_bytes(pickle.dumps(RunsCode(trace)))
    assert "can't be read as weights" in refusal(name, path)
    assert not trace.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet"), path)
    assert "state_dict()" in refusal("test_resnet", path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(suffix: str, part: float, tmp_path: Path) -> None:
    path = write(weights("test_resnet"), tmp_path / f"w{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert "can't be read as weights" in refusal("test_resnet", path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin", "w"])
@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html></html>", b"hello\n" * 50, bytes(range(256)), b"\x80\x04."])
def test_a_file_of_something_else_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "can't be read as weights" in refusal("test_resnet", path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {1: torch.zeros(2)}, {"a": 1}, {"net": {"fc.weight": torch.zeros(2)}}, {}],
    ids=["list", "tensor", "numbered", "scalars", "nested", "empty"],
)
@pytest.mark.parametrize("name", ["test_resnet", "torchvision/shufflenet_v2_x0_5"])
def test_a_pickle_of_something_else_is_refused(name: str, content: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    assert "weights" in refusal(name, path)


def test_a_scalar_in_the_place_of_the_head_is_refused(tmp_path: Path) -> None:
    for name in ("test_resnet", "torchvision/shufflenet_v2_x0_5"):
        tensors = {**weights(name), "fc.weight": torch.zeros(()), "fc.bias": torch.zeros(())}
        assert "fc.weight" in refusal(name, write(tensors, tmp_path / "w.safetensors"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal("test_resnet", tmp_path / "none.pth")
    assert "no such file" in refusal("test_resnet", tmp_path)


def test_a_setting_that_the_model_lacks_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = write(weights("test_resnet"), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"model\.drop_path_rate=0\.1") as caught:
        create_classifier("vgg11", N, checkpoint=path, drop_path_rate=0.1)
    assert "not the weights" not in str(caught.value)
