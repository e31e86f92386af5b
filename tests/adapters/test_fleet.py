"""A fleet answers each image as its camera's own adapter does alone, whatever the model."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import LAYERS, MODELS, LayerCase, ModelCase, wake
from helpers.fleets import difference, move, one_by_one, save_cameras
from visionlora.adapters.fleet import layers

CAMERAS = ["camera2", "camera0", "camera1", "camera0"]
THREE = ({}, {"rank": 3}, {})
SOME = (
    *("timm_test_resnet", "timm_test_nfnet", "timm_test_efficientnet", "timm_vit_tiny_patch16_224"),
    *("timm_beit_base_patch16_224", "timm_swinv2_tiny_window8_256", "torchvision_vit", "torchvision_swin"),
)
"""Models that differ in how their layers meet the images: plain layers, weights that a parent reads, windows."""


def check(base: nn.Module, files: dict[str, Path], images: Tensor, cameras: list[str] = CAMERAS) -> vl.Fleet:
    """The fleet, after its mixed batch agreed with one by one, and differed from one adapter for all."""
    fleet = vl.Fleet(base.eval(), files)
    found, expected = fleet(images, cameras), torch.cat(one_by_one(fleet, images, cameras))
    assert difference(found, expected) < 1e-9
    assert difference(torch.cat(one_by_one(fleet, images, cameras[:1] * len(images))), expected) > 1e-4
    return fleet


@pytest.mark.parametrize("case", [case for case in MODELS if case.name in SOME], ids=lambda case: case.name)
def test_models(case: ModelCase, tmp_path: Path) -> None:
    base = wake(case.make()).double()
    images = torch.randn(4, 3, case.size, case.size, dtype=torch.float64)
    fleet = check(base, save_cameras(base, tmp_path, *THREE, scale=0.05), images)
    assert fleet.reason == ""


@pytest.mark.parametrize("route", ["beside", "by group"])
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_layers(case: LayerCase, route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "mixed_route", lambda *_: route)
    base = nn.Sequential(case.make()).double()
    images = torch.randn(4, *case.shape[1:], dtype=torch.float64)
    assert check(base, save_cameras(base, tmp_path, *THREE), images).reason == ""


@pytest.mark.parametrize("method", ["dora", "lokr", "ia3", "rslora"])
@pytest.mark.parametrize(
    "case", [c for c in LAYERS if c.name in ("linear_3d_input", "conv2d_grouped")], ids=lambda case: case.name
)
def test_methods_mix_with_each_other(case: LayerCase, method: str, tmp_path: Path) -> None:
    base = nn.Sequential(case.make(), nn.ReLU()).double()
    images = torch.randn(4, *case.shape[1:], dtype=torch.float64)
    check(base, save_cameras(base, tmp_path, {}, {"method": method}, {"method": method}, scale=0.3), images)


class Net(nn.Module):
    """A convolution with its BatchNorm, a fused projection, a head."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.qkv(self.norm(self.conv(x)).relu().flatten(2).mT).mean(1))


X = torch.randn(4, 3, 6, 6, dtype=torch.float64)


def test_heads_and_batchnorm_are_the_cameras_own(tmp_path: Path) -> None:
    base = Net().double()
    config = {"targets": ["conv"], "unfreeze": ["head", "norm"], "batchnorm": "train"}
    fleet = check(base, save_cameras(base, tmp_path, config, {**config, "targets": ["qkv"]}, config, scale=0.5), X)
    assert fleet.reason == ""


def test_other_layers_unfrozen_than_others_adapt(tmp_path: Path) -> None:
    base = Net().double()
    configs = {"targets": ["conv"], "unfreeze": ["qkv.bias"]}, {"targets": ["qkv"]}, {"unfreeze": ["conv", "head"]}
    assert check(base, save_cameras(base, tmp_path, *configs, scale=0.5), X).reason == ""


def cameras_with_classes(folder: Path, *classes: int) -> dict[str, Path]:
    """Over one base, by its seed, heads of these sizes."""
    files = {}
    for count in classes:
        model = net_of(count)
        vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["head"]))
        move(model, 0.3)
        files[f"of_{count}"] = folder / f"{count}.safetensors"
        vl.save_adapter(model, files[f"of_{count}"], classes=[f"c{i}" for i in range(count)])
    return files


def net_of(classes: int) -> nn.Module:
    torch.manual_seed(1)
    model = Net().double()
    model.head = nn.Linear(24, classes).double()
    return model


def test_cameras_with_other_classes_are_answered_in_a_list(tmp_path: Path) -> None:
    fleet = vl.Fleet(net_of(4).eval(), cameras_with_classes(tmp_path, 2, 5, 4))
    cameras = ["of_5", "of_2", "of_4", "of_5"]
    found, expected = fleet(X, cameras), one_by_one(fleet, X, cameras)
    assert [len(answer) for answer in found] == [5, 2, 4, 5] and fleet.reason == ""
    assert all(difference(one, other[0]) < 1e-9 for one, other in zip(found, expected, strict=True))
    assert fleet(X[:2], ["of_5", "of_5"]).shape == (2, 5)
    assert fleet.model.head.out_features == 4 and len(fleet.headers["of_2"].classes or []) == 2
    assert fleet.switch("of_2").head.out_features == 2
    fleet.detach()
    assert fleet.model.head.weight.shape == (4, 24) and fleet.model.head.out_features == 4


class Share(nn.Module):
    """The classes' shares, in which those that another camera has would count."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.qkv, self.head = net.conv, net.norm, net.qkv, net.head

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = Net.forward(self, x).softmax(-1)  # type: ignore[arg-type]
        return answer


def test_classes_that_others_lack_leave_no_trace(tmp_path: Path) -> None:
    fleet = vl.Fleet(Share(net_of(4)).eval(), cameras_with_classes(tmp_path, 2, 5))
    found = fleet(X[:2], ["of_5", "of_2"])
    assert "numbers of classes" in fleet.reason
    assert [float(answer.sum()) for answer in found] == pytest.approx([1, 1])


class Centred(nn.Module):
    """An image's answer depends on the others of its batch, before an adapted layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x - x.mean(0))


class Across(nn.Module):
    """Rows in turn of one image each, so that a group is no span of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, M, 4)
        rows = self.first(x).transpose(0, 1).reshape(-1, 8)  # (M * N, 8)
        return self.last(rows.relu()).view(x.shape[1], len(x), 3).transpose(0, 1)


@pytest.mark.parametrize(("make", "shape"), [(Centred, (4, 4)), (Across, (4, 5, 4))])
def test_images_that_can_not_be_told_apart_are_answered_camera_by_camera(
    make: type[nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    base = make().double()
    fleet = vl.Fleet(base.eval(), save_cameras(base, tmp_path, {}, {}, scale=0.5))
    images = torch.randn(shape, dtype=torch.float64)
    cameras = ["camera1", "camera0", "camera0", "camera1"]
    found = fleet(images, cameras)
    assert "'last' is read" in fleet.reason
    with torch.no_grad():
        for camera in ("camera0", "camera1"):
            own = [at for at, name in enumerate(cameras) if name == camera]
            assert difference(found[own], fleet.switch(camera)(images[own])) < 1e-9


class Sometimes(nn.Module):
    """A layer that only some images meet, and noise does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x)) if (x > 5).any() else self.first(x)


def test_what_was_not_foreseen_is_answered_camera_by_camera(tmp_path: Path) -> None:
    base = Sometimes().double()
    fleet = vl.Fleet(base.eval(), save_cameras(base, tmp_path, {}, {}, scale=0.5))
    images, cameras = torch.rand(2, 4, dtype=torch.float64), ["camera1", "camera0"]
    fleet(images, cameras)
    assert fleet.reason == ""
    images += 9
    expected = torch.cat(one_by_one(fleet, images, cameras))
    assert difference(fleet(images, cameras), expected) < 1e-9 and "was not called" in fleet.reason


def test_switching_shows_a_camera_and_none_the_base(tmp_path: Path) -> None:
    base = Net().double().eval()
    with torch.no_grad():
        expected = base(X)
    files = save_cameras(base, tmp_path, {"unfreeze": ["head"]}, {"unfreeze": ["head"]}, scale=0.5)
    alone = Net().double()
    alone.load_state_dict(base.state_dict())
    vl.load_adapter(alone, files["camera1"])
    fleet = vl.Fleet(base, files)
    with torch.no_grad():
        assert torch.equal(fleet.switch("camera1")(X), alone.eval()(X))
        fleet(X, ["camera0", "camera1", "camera0", "camera0"])
        assert torch.equal(fleet.model(X), alone(X)), "a mixed batch changed what is shown"
        assert torch.equal(fleet.switch(None)(X), expected)
    assert vl.adapter_names(fleet.detach()) == [] and torch.equal(base(X), expected)


def test_folded_batchnorm_and_low_precision(tmp_path: Path) -> None:
    base = Net().eval()
    fleet = vl.Fleet(base, save_cameras(base, tmp_path, {}, {}, {}, scale=0.3))
    images = X.float()
    vl.fold_batchnorm(fleet.model, images)
    found, expected = fleet(images, CAMERAS), torch.cat(one_by_one(fleet, images, CAMERAS))
    assert difference(found, expected) < 1e-5
    fleet.model.bfloat16()
    found = fleet(images.bfloat16(), CAMERAS)
    assert found.dtype == torch.bfloat16 and difference(found.float(), expected) < 0.05


def test_a_timm_model_in_float32(tmp_path: Path) -> None:
    base = timm.create_model("test_vit", num_classes=5).eval()
    fleet = vl.Fleet(base, save_cameras(base, tmp_path, *[{"targets": ["attn.qkv:q,v"], "unfreeze": ["head"]}] * 3))
    images = torch.randn(4, 3, 160, 160)
    assert difference(fleet(images, CAMERAS), torch.cat(one_by_one(fleet, images, CAMERAS))) < 1e-5


def test_refusals(tmp_path: Path) -> None:
    base = Net().eval()
    files = save_cameras(base, tmp_path, {}, {})
    with pytest.raises(vl.InputError, match="at least one camera"):
        vl.Fleet(base, {})
    before = {name: value.clone() for name, value in base.state_dict().items()}
    other = Net().eval()
    with pytest.raises(vl.InputError, match=r"1\.safetensors.*made on another base"):
        vl.Fleet(other, {"own": save_cameras(other, tmp_path, {})["camera0"], "foreign": files["camera1"]})
    assert vl.adapter_names(other) == [] and type(other.conv) is nn.Conv2d
    files = save_cameras(base, tmp_path, {}, {})
    fleet = vl.Fleet(base, files)
    for cameras, words in (
        (["camera0", "camrea1"], r"no camera 'camrea1'.*did you mean 'camera1'\?"),
        (["camera0"], "2 images and"),
        ("camera0", "2 images and"),
    ):
        with pytest.raises(vl.InputError, match=words):
            fleet(X[:2].float(), cameras)
    with pytest.raises(vl.InputError, match="no camera"):
        fleet.switch("yard")
    with pytest.raises(vl.InputError, match="no images"):
        fleet(X[:0].float(), [])
    with pytest.raises(vl.InputError, match="has adapters already"):
        vl.Fleet(base, files)
    fleet.model.train()
    with pytest.raises(vl.InputError, match="training mode"):
        fleet(X[:1].float(), ["camera0"])
    fleet.detach()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_an_answer_without_an_entry_for_each_image_is_refused(tmp_path: Path) -> None:
    class Mean(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).mean()

    base = Mean().double().eval()
    fleet = vl.Fleet(base, save_cameras(base, tmp_path, {}, {}))
    with pytest.raises(vl.InputError, match="one entry for each image"):
        fleet(X[:2], ["camera0", "camera1"])
