"""One file per adapter: what is in it, what it is refused for, and that a refusal changes nothing."""

import copy
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import VIT, perturb

Metadata = dict[str, str]
Tensors = dict[str, Tensor]


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.bn2(self.conv2(x)).relu().mean((2, 3))


class Classifier(Backbone):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().forward(x))


class Detector(nn.Module):
    """A bigger model around the backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.boxes = backbone, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.boxes(Backbone.forward(self.backbone, x))


def images(seed: int = 1) -> Tensor:
    return 2 + 3 * torch.randn(6, 3, 15, 15, generator=torch.Generator().manual_seed(seed))


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(images())


def train(model: nn.Module, seed: int = 2) -> nn.Module:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for step in range(3):
        optimizer.zero_grad()
        model(images(seed + step)).square().sum().backward()
        optimizer.step()
    return model


def config(**changes: Any) -> vl.LoRAConfig:
    return vl.LoRAConfig(**{"rank": 2, "unfreeze": ["head"], "batchnorm": "train"} | changes)


def snapshot(model: nn.Module) -> tuple[Any, ...]:
    """All that a refused load must leave alone."""
    modules = [(name, type(module), module.training) for name, module in model.named_modules()]
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    values = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    return modules, flags, values, vl.adapter_names(model)


def refusal(model: nn.Module, path: Path, **options: Any) -> str:
    """The one line that a load is refused with; the model must be left as it was."""
    before = snapshot(model)
    with pytest.raises(vl.InputError) as error:
        vl.load_adapter(model, path, **options)
    assert snapshot(model) == before
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    return message


def edit(path: Path, change: Callable[[Metadata, Tensors], None]) -> Path:
    """Rewrite a safetensors file with its metadata and tensors changed."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    metadata.pop("sha256", None)  # who edits a file says that it is no longer what was written
    tensors = load_file(path)
    change(metadata, tensors)
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.fixture
def base() -> nn.Module:
    return train(Classifier())


@pytest.fixture
def trained(base: nn.Module) -> nn.Module:
    model = copy.deepcopy(base)
    vl.attach(model, config())
    return train(model)


@pytest.fixture
def file(trained: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    vl.save_adapter(trained, path)
    return path


FACTORS = {f"{layer}.weight.{factor}" for layer in ("conv1", "conv2") for factor in ("lora_A", "lora_B")}
STATISTICS = {
    f"{bn}.{name}" for bn in ("bn1", "bn2") for name in ("running_mean", "running_var", "num_batches_tracked")
}
AFFINE = {f"{bn}.{name}" for bn in ("bn1", "bn2") for name in ("weight", "bias")}
HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("mode", "batchnorm_keys"), [("frozen", set()), ("recalibrate", STATISTICS), ("train", STATISTICS | AFFINE)]
)
def test_the_file_holds_what_the_adapter_changed_and_loads_to_the_same_model(
    base: nn.Module, tmp_path: Path, mode: str, batchnorm_keys: set[str]
) -> None:
    model, path = copy.deepcopy(base), tmp_path / "a.safetensors"
    vl.attach(model, config(batchnorm=mode))
    train(model)
    vl.save_adapter(model, path)
    assert set(load_file(path)) == FACTORS | HEAD | batchnorm_keys
    fresh = copy.deepcopy(base)
    report = vl.load_adapter(fresh, path)
    assert torch.equal(run(fresh), run(model))
    with vl.disabled(fresh):
        assert torch.equal(run(fresh), run(base))
    assert [layer.path for layer in report.adapted] == ["conv1", "conv2"] and report.unfrozen == [("head", 36)]
    assert {n: p.requires_grad for n, p in fresh.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    vl.detach(fresh)
    assert snapshot(fresh.eval()) == snapshot(base.eval())


def test_a_loaded_adapter_trains_on_as_the_saved_one(base: nn.Module, trained: nn.Module, file: Path) -> None:
    vl.load_adapter(base, file)
    assert torch.equal(run(train(base, seed=9)), run(train(trained, seed=9)))


def test_an_inactive_adapter_is_saved_with_its_own_values(base: nn.Module, trained: nn.Module, tmp_path: Path) -> None:
    expected = run(trained)
    vl.attach(trained, config(), name="other")
    train(trained, seed=30)
    vl.save_adapter(trained, tmp_path / "a.safetensors")
    vl.load_adapter(base, tmp_path / "a.safetensors")
    assert torch.equal(run(base), expected)


def test_the_header_comes_back(trained: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    preprocessing = {"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "interpolation": "bicubic"}
    extra = {"metrics": {"accuracy": 0.93}, "note": "Kamera 3, Zufahrt Süd"}
    classes = ["empty", "car", "lorry", "Fußgänger"]
    vl.save_adapter(trained, path, classes=classes, preprocessing=preprocessing, extra=extra)
    header = vl.read_header(path)
    assert (header.classes, header.preprocessing, header.extra) == (classes, preprocessing, extra)
    assert header.config == config() and header.unfrozen == ["head"]
    assert header.layers["conv1.weight"] == {"rank": 2, "alpha": 16.0, "parts": ""}
    assert set(header.base) == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}


def test_what_was_not_given_is_none(file: Path) -> None:
    header = vl.read_header(file)
    assert (header.classes, header.preprocessing, header.extra) == (None, None, {})


def test_a_timm_model_is_known_by_its_architecture(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, **VIT)
    vl.attach(model, vl.LoRAConfig(targets="attention"))
    vl.save_adapter(model, tmp_path / "a.safetensors")
    assert vl.read_header(tmp_path / "a.safetensors").architecture == {
        "class": "timm.models.vision_transformer.VisionTransformer",
        "timm": "vit_tiny_patch16_224",
    }


@pytest.mark.parametrize(("targets", "method"), [(["attn.qkv:q,v", "attn.proj"], "lora"), ("all", "rslora")])
def test_parts_and_rslora_come_back(tmp_path: Path, targets: list[str] | str, method: str) -> None:
    def make() -> nn.Module:
        torch.manual_seed(1)
        return timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, **VIT).eval()

    model, fresh, path = make(), make(), tmp_path / "a.safetensors"
    patterns = {"blocks.1.*": 3}
    vl.attach(
        model, vl.LoRAConfig(rank=2, targets=targets, method=method, rank_pattern=patterns, alpha_pattern=patterns)
    )
    perturb(model)
    vl.save_adapter(model, path)
    vl.load_adapter(fresh, path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(fresh(x), model(x)) and not torch.equal(fresh(x), make()(x))
    assert [(n, m.extra_repr()) for n, m in fresh.named_modules()] == [
        (n, m.extra_repr()) for n, m in model.named_modules()
    ]


def test_another_base_is_refused_with_the_tensor_that_differs(base: nn.Module, file: Path) -> None:
    with torch.no_grad():
        base.conv2.weight[3, 2, 1, 1] += 1e-6
    message = refusal(base, file)
    assert str(file) in message and "1 of 4 frozen tensors differ, 'conv2.weight' first" in message


def test_the_same_numbers_in_another_shape_are_another_base(base: nn.Module, file: Path) -> None:
    base.conv2.weight = nn.Parameter(base.conv2.weight.detach().reshape(8, 6, 1, 9))
    assert "'conv2.weight' first" in refusal(base, file)


def test_another_architecture_is_refused(file: Path) -> None:
    message = refusal(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), file)
    assert "another architecture" in message and "Classifier" in message
    assert "this Sequential has no conv1.weight, conv1.bias and 2 more" in message


def test_another_number_of_classes_is_refused_unless_heads_stay_out(base: nn.Module, file: Path) -> None:
    other = Classifier(classes=7)
    other.load_state_dict({k: v for k, v in base.state_dict().items() if "head" not in k}, strict=False)
    message = refusal(other, file)
    assert "'head.bias' is (4,) in the file and (7,) in the model" in message and "heads=False" in message


def test_a_name_that_is_taken_is_refused(base: nn.Module, file: Path) -> None:
    vl.load_adapter(base, file)
    assert "has an adapter 'default' already" in refusal(base, file)
    vl.load_adapter(base, file, name="again")
    assert vl.adapter_names(base) == ["default", "again"]


def test_a_truncated_file_is_refused(base: nn.Module, file: Path) -> None:
    whole = file.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert f"{file}: not a whole safetensors file" in refusal(base, file)
        with pytest.raises(vl.InputError, match="not a whole safetensors file"):
            vl.read_header(file)


def test_what_is_no_safetensors_file_is_refused(base: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for content in (b"\x00" * 200, b"<html>404 not found</html>\n" * 20, b"\xff" * 100):
        path.write_bytes(content)
        assert "not a whole safetensors file" in refusal(base, path)
    torch.save(base.state_dict(), path)
    assert "not a whole safetensors file" in refusal(base, path)
    assert "no such file" in refusal(base, tmp_path / "missing.safetensors")
    assert "no such file" in refusal(base, tmp_path)


def test_plain_weights_are_refused(base: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file(base.state_dict(), path, metadata=metadata)
        assert "no visionlora adapter" in refusal(base, path)


def test_a_newer_format_is_refused_with_the_version_that_wrote_it(base: nn.Module, file: Path) -> None:
    edit(file, lambda metadata, _: metadata.update(format_version="3", visionlora="9.1"))
    message = refusal(base, file)
    assert "format 3, and this visionlora reads formats 1 and 2" in message and "visionlora 9.1" in message


FIELDS = ("config", "layers", "unfrozen", "architecture", "base", "classes", "preprocessing", "extra")


@pytest.mark.parametrize("field", FIELDS)
def test_a_damaged_header_is_refused(base: nn.Module, file: Path, field: str) -> None:
    with safe_open(file, framework="pt") as opened:
        value = opened.metadata()[field]
    damaged = ["", "{", value[:-1], "1", '"x"', "[1" if value == "[]" else value + "x"]
    for content in damaged:
        edit(file, lambda metadata, _, content=content: metadata.update({field: content}))
        message = refusal(base, file)
        assert f"{file}: the adapter's header is damaged" in message
    edit(file, lambda metadata, _: metadata.pop(field))
    assert f"header is damaged ('{field}')" in refusal(base, file)


def _layers(metadata: Metadata, **changes: Any) -> None:
    layers = json.loads(metadata["layers"])
    layers["conv1.weight"].update(changes)
    metadata["layers"] = json.dumps(layers)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": -2}, "rank is -2"),
        ({"rank": "2"}, "rank of conv1.weight is '2'"),
        ({"rank": 2.0}, "rank of conv1.weight is 2.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": None}, "alpha of conv1.weight is None"),
        ({"parts": "q,x"}, "parts of conv1.weight are 'q,x'"),
        ({"parts": "q"}, "orders q, k and v in 'conv1' is not known"),
        ({"rank": 3}, "conv1.weight.lora_A is of shape (2, 3, 3, 3), and should be (3, 3, 3, 3)"),
    ],
)
def test_a_damaged_layer_entry_is_refused(base: nn.Module, file: Path, change: dict[str, Any], expected: str) -> None:
    edit(file, lambda metadata, _: _layers(metadata, **change))
    assert expected in refusal(base, file)


def _config(metadata: Metadata, **changes: Any) -> None:
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | changes)


def _rename_layer(metadata: Metadata, new: str) -> None:
    metadata["layers"] = metadata["layers"].replace("conv1.weight", new)


def _drop(key: str) -> Callable[[Metadata, Tensors], object]:
    return lambda _, tensors: tensors.pop(key)


def _put(key: str, tensor: Tensor) -> Callable[[Metadata, Tensors], object]:
    return lambda _, tensors: tensors.update({key: tensor})


EDITS = [
    (
        "factor of the wrong rank",
        _put("conv1.weight.lora_B", torch.ones(6, 3)),
        "conv1.weight.lora_B is of shape (6, 3)",
    ),
    ("factor of the wrong layer", _put("conv2.weight.lora_A", torch.ones(2, 6, 1, 1)), "and should be (2, 6, 3, 3)"),
    ("factor missing", _drop("conv1.weight.lora_A"), "conv1.weight.lora_A is absent"),
    ("factors that the header does not name", _put("bn1.weight.lora_A", torch.ones(2, 1)), "bn1.weight.lora_A is in"),
    ("head tensor missing", _drop("head.bias"), "head.bias of the unfrozen head is missing"),
    (
        "head that is not in the model",
        _put("neck.weight", torch.ones(2)),
        "the file has 'neck.weight', the model has not",
    ),
    (
        "frozen weight",
        _put("conv1.weight", torch.zeros(6, 3, 3, 3)),
        "'conv1.weight', which its header does not unfreeze",
    ),
    ("BatchNorm of another width", _put("bn1.running_mean", torch.zeros(7)), "'bn1.running_mean' is (7,) in the file"),
    (
        "BatchNorm that the config freezes",
        lambda metadata, _: _config(metadata, batchnorm="frozen"),
        "which its header does not unfreeze",
    ),
    (
        "unknown setting",
        lambda metadata, _: _config(metadata, ranks=3),
        "unknown LoRA setting 'ranks' (did you mean 'rank'?)",
    ),
    ("bad setting", lambda metadata, _: _config(metadata, rank=0), "header is damaged (rank is 0"),
    ("unknown layer", lambda metadata, _: _rename_layer(metadata, "conv9.weight"), "adapts 'conv9.weight'"),
    ("unknown parameter", lambda metadata, _: _rename_layer(metadata, "conv1.gain"), "no such weight"),
    ("layer without adapters", lambda metadata, _: _rename_layer(metadata, "bn1.weight"), "normalisation layer"),
    (
        "unknown head",
        lambda metadata, _: metadata.update(unfrozen='["head", "tail"]'),
        "tail of the unfrozen head, tail",
    ),
]


@pytest.mark.parametrize(("change", "expected"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_a_file_that_contradicts_itself_is_refused(
    base: nn.Module, file: Path, change: Callable[[Metadata, Tensors], None], expected: str
) -> None:
    edit(file, change)
    message = refusal(base, file)
    assert expected in message and str(file) in message


def test_a_refused_load_leaves_the_adapters_that_are_there(trained: nn.Module, file: Path) -> None:
    expected = run(trained)
    edit(file, _drop("head.bias"))
    refusal(trained, file, name="second")
    assert torch.equal(run(trained), expected)


def test_a_head_carries_over_neither_shape_nor_values(base: nn.Module, trained: nn.Module, file: Path) -> None:
    other = Classifier(classes=7)
    other.load_state_dict({k: v for k, v in base.state_dict().items() if "head" not in k}, strict=False)
    head = copy.deepcopy(other.head.state_dict())
    report = vl.load_adapter(other, file, heads=False)
    assert report.unfrozen == [] and not other.head.weight.requires_grad
    assert all(torch.equal(value, head[key]) for key, value in other.head.state_dict().items())
    with torch.no_grad():
        features = Backbone.forward(trained.eval(), images())
        assert torch.equal(run(other), other.head(features))
        assert not torch.equal(features, Backbone.forward(base.eval(), images()))


def test_without_its_head_an_adapter_goes_into_a_bigger_model(base: nn.Module, trained: nn.Module, file: Path) -> None:
    """As a submodule: the names in the file are the backbone's own."""
    plain = Backbone()
    plain.load_state_dict({k: v for k, v in base.state_dict().items() if "head" not in k})
    detector = Detector(plain)
    vl.load_adapter(detector.backbone, file, heads=False)
    with torch.no_grad():
        features = Backbone.forward(trained.eval(), images())
        assert torch.equal(run(detector), detector.boxes(features))
    assert "this Detector has no conv1.weight" in refusal(detector, file, name="whole", heads=False)
    vl.merge(detector)
    assert type(detector.backbone.conv1) is nn.Conv2d and not vl.adapter_names(detector)


def test_an_adapter_of_a_submodule_saves_and_loads(base: nn.Module, tmp_path: Path) -> None:
    path, expected_boxes = tmp_path / "a.safetensors", nn.Linear(8, 4)
    detector, fresh = Detector(copy.deepcopy(base)), Detector(copy.deepcopy(base))
    for model in (detector, fresh):
        model.boxes.load_state_dict(expected_boxes.state_dict())
    vl.attach(detector.backbone, config(unfreeze=[]))
    assert detector.boxes.weight.requires_grad, "what lies outside the submodule is not touched"
    train(detector)
    with pytest.raises(vl.InputError, match="there is one on 'backbone'"):
        vl.save_adapter(detector, path)
    vl.save_adapter(detector.backbone, path)
    assert "conv1.weight.lora_A" in load_file(path)
    vl.load_adapter(fresh.backbone, path)
    fresh.boxes.load_state_dict(detector.boxes.state_dict())
    assert torch.equal(run(fresh), run(detector))


def test_saved_again_after_a_load_without_head_the_file_asks_for_no_head(
    base: nn.Module, trained: nn.Module, file: Path, tmp_path: Path
) -> None:
    def with_classes(number: int) -> nn.Module:
        model = Classifier(classes=number)
        model.load_state_dict({k: v for k, v in base.state_dict().items() if "head" not in k}, strict=False)
        return model

    seven, two = with_classes(7), with_classes(2)
    vl.load_adapter(seven, file, heads=False)
    vl.save_adapter(seven, tmp_path / "again.safetensors")
    vl.load_adapter(two, tmp_path / "again.safetensors")
    with torch.no_grad():
        assert torch.equal(run(two), two.head(Backbone.forward(trained.eval(), images())))


def test_saving_an_unknown_adapter_is_refused(trained: nn.Module, base: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(vl.InputError, match=r"no adapter 'defualt'.*did you mean 'default'"):
        vl.save_adapter(trained, tmp_path / "a.safetensors", name="defualt")
    with pytest.raises(vl.InputError, match="no adapter 'default'"):
        vl.save_adapter(base, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_midway_leaves_the_old_file(
    trained: nn.Module, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = file.read_bytes()

    def fail(tensors: Tensors, path: Path, metadata: Metadata) -> None:
        save_file(tensors, path, metadata=metadata)
        assert path != file and path.parent == file.parent
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("visionlora.adapters.saving.write_tensors", fail)
    train(trained)
    with pytest.raises(OSError, match="no space left"):
        vl.save_adapter(trained, file)
    assert file.read_bytes() == old and list(file.parent.iterdir()) == [file]
    monkeypatch.undo()
    vl.save_adapter(trained, file)
    assert file.read_bytes() != old and list(file.parent.iterdir()) == [file]


def test_saving_leaves_the_model_as_it_is(trained: nn.Module, tmp_path: Path) -> None:
    before = snapshot(trained)
    vl.save_adapter(trained, tmp_path / "new" / "folder" / "a.safetensors")
    assert snapshot(trained) == before


def test_a_fleet_of_three_files_on_one_base(base: nn.Module, tmp_path: Path) -> None:
    expected, names = {}, ["gate", "car-park", "dock"]
    for seed, name in enumerate(names):
        model = copy.deepcopy(base)
        vl.attach(model, config(batchnorm=("frozen", "recalibrate", "train")[seed], rank=seed + 1))
        expected[name] = run(train(model, seed=20 * seed))
        vl.save_adapter(model, tmp_path / f"{name}.safetensors", classes=[name])
    fleet = copy.deepcopy(base)
    for name in names:
        vl.load_adapter(fleet, tmp_path / f"{name}.safetensors", name=name)
    for name in [*names, *reversed(names)]:
        vl.activate(fleet, name)
        assert torch.equal(run(fleet), expected[name])
    with vl.disabled(fleet):
        assert torch.equal(run(fleet), run(base))
    assert len({tuple(out.flatten().tolist()) for out in expected.values()}) == 3
