"""The pieces of the loop, each against its formula."""

import errno
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

import visionlora as vl
from helpers.runs import make_config, make_images
from visionlora.errors import InputError
from visionlora.sections import TrainSection
from visionlora.tasks.evaluation import evaluation_copy
from visionlora.training.checkpoint import Progress, checkpoints, load_checkpoint, read_checkpoint, save_checkpoint
from visionlora.training.layer_stats import layer_statistics
from visionlora.training.optimizer import build_optimizer, schedule, set_learning_rates
from visionlora.training.run import pick_device, train


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_the_schedule_warms_up_linearly_and_falls_as_half_a_cosine() -> None:
    factors = [schedule(step, warmup=4, total=20) for step in range(20)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1.0
    assert factors[12] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert all(later < earlier for earlier, later in zip(factors[4:], factors[5:], strict=False))
    assert schedule(20, 4, 20) == pytest.approx(0.0)


def test_adapter_and_head_have_their_own_rates_and_vectors_do_not_decay() -> None:
    model = small_model()
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["0"], unfreeze=["4"]))
    optimizer = build_optimizer(model, ["4"], TrainSection(lr=0.1, head_lr=0.01, weight_decay=0.5))
    rates = set_learning_rates(optimizer, step=4, warmup=4, total=20)
    assert rates == {"adapter": 0.1, "head": 0.01}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(model[4].weight)] == 0.5 and decay[id(model[4].bias)] == 0.0  # type: ignore[index]
    assert set(decay) == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize(("method", "end"), [("lora", "lora_B"), ("lora_fa", "lora_B"), ("tucker", "tucker_up")])
def test_what_starts_at_zero_has_its_own_rate(method: str, end: str) -> None:
    model = small_model()
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["0"], unfreeze=["4"], method=method))
    optimizer = build_optimizer(model, ["4"], TrainSection(lr=0.1, head_lr=0.01, lora_plus=16))
    rates = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 0.01 if name.startswith("4") else 1.6 if name.endswith(end) else 0.1
            assert rates[id(parameter)] == pytest.approx(expected), name
    assert set_learning_rates(optimizer, step=4, warmup=4, total=20)["adapter_b"] == pytest.approx(1.6)


def test_a_rate_of_b_without_a_b_is_refused() -> None:
    model = small_model()
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["0"], method="lokr"))
    with pytest.raises(InputError, match="train.lora_plus is 16, and no adapter has a B"):
        build_optimizer(model, [], TrainSection(lora_plus=16))


def test_each_layer_has_the_share_of_the_rate_behind_it() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    optimizer = build_optimizer(
        model, ["head"], TrainSection(method="full", lr=0.1, head_lr=0.3, layer_decay=0.5, weight_decay=0.2)
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert set(of) == {name for name, _ in model.named_parameters()}
    rates = [of[f"blocks.{block}.mlp.fc1.weight"]["peak_lr"] for block in range(len(model.blocks))]
    assert rates == pytest.approx([rates[-1] / 2**behind for behind in reversed(range(len(rates)))])
    assert of["patch_embed.proj.weight"]["peak_lr"] == pytest.approx(rates[0] / 2) and rates[-1] < 0.1
    assert of["head.weight"]["peak_lr"] == 0.3 and of["head.weight"]["weight_decay"] == 0.2
    assert of["blocks.0.norm1.weight"]["weight_decay"] == 0
    assert set_learning_rates(optimizer, step=4, warmup=4, total=20)["adapter"] == pytest.approx(max(rates))


def test_layers_that_nobody_knows_and_adapters_are_refused() -> None:
    with pytest.raises(InputError, match=r"train.layer_decay is 0.5, and no timm model is in this one"):
        build_optimizer(small_model(), [], TrainSection(method="full", layer_decay=0.5))
    with pytest.raises(InputError, match=r"train.layer_decay is 0.5, and is for train.method=full alone"):
        build_optimizer(small_model(), [], TrainSection(layer_decay=0.5))


def test_an_optimizer_over_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no parameter"):
        build_optimizer(small_model().requires_grad_(False), [], TrainSection())


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=8)
    common = {"epochs": 1, "warmup_epochs": 0, "log_every": 1}
    large = make_config(images, tmp_path / "large", batch_size=8, **common)
    small = make_config(images, tmp_path / "small", batch_size=4, accumulate=2, **common)
    weights = []
    for config in (large, small):
        # Dropout would draw other masks for other batch sizes.
        config = config.model_copy(update={"model": config.model.model_copy(update={"drop_rate": 0.0})})
        folder = train(config, quiet=True).folder
        model = vl.read_header(folder / "adapter.safetensors")
        assert model.classes
        from safetensors.torch import load_file

        weights.append(load_file(folder / "adapter.safetensors"))
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=2e-4) for key in weights[0])


def test_layer_statistics_are_norms_of_update_and_gradients() -> None:
    model = small_model()
    vl.attach(model, vl.LoRAConfig(rank=2, alpha=6, targets=["0"], unfreeze=["4"]))
    factors = model[0].adapters["default"]["weight"]  # type: ignore[index,union-attr]
    with torch.no_grad():
        factors.lora_B.normal_()
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    found = layer_statistics(model)
    weight = model[0]._parameters["weight"]
    update = 3 * torch.einsum("or,rchw->ochw", factors.lora_B, factors.lora_A).detach()
    weight = weight.detach()
    assert found["update_over_weight/0"] == pytest.approx(float(update.norm() / weight.norm()), rel=1e-5)
    assert found["gradient_lora_B/0"] == pytest.approx(float(factors.lora_B.grad.norm()), rel=1e-6)


def test_evaluation_runs_on_a_merged_copy_and_leaves_the_model() -> None:
    model = small_model().train()
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["0"], unfreeze=["4"]))
    names = list(model.state_dict())
    copy = evaluation_copy(model)
    assert not copy.training and model.training
    assert not any("lora" in name for name in copy.state_dict())
    assert list(model.state_dict()) == names


def test_checkpoints_restore_model_optimizer_and_every_random_state(tmp_path: Path) -> None:
    model = small_model()
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["4"]))
    optimizer, scaler = build_optimizer(model, ["4"], TrainSection()), torch.amp.GradScaler("cpu", enabled=False)

    def step() -> None:
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    save_checkpoint(tmp_path, Progress(step=7, best=0.5), model, optimizer, scaler, "base")
    draws = [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()]
    step()
    expected = {key: value.clone() for key, value in model.state_dict().items()}

    torch.rand(5), np.random.rand(5), random.random()
    progress = load_checkpoint(read_checkpoint(checkpoints(tmp_path)[-1]), model, optimizer, scaler, "base")
    assert progress == Progress(step=7, best=0.5)
    assert [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()] == draws
    step()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_another_optimizer_is_refused_by_the_checkpoints_name_and_changes_nothing(tmp_path: Path) -> None:
    model = small_model()
    optimizer, scaler = build_optimizer(model, [], TrainSection()), torch.amp.GradScaler("cpu", enabled=False)
    save_checkpoint(tmp_path, Progress(step=1), model, optimizer, scaler, "")
    found = read_checkpoint(checkpoints(tmp_path)[-1])
    with torch.no_grad():
        model[0].weight.add_(1)
    before, other = model[0].weight.clone(), build_optimizer(model, ["4"], TrainSection())
    with pytest.raises(InputError, match=f"^{re.escape(str(found.path))}: its optimizer has other parameters"):
        load_checkpoint(found, model, other, scaler, "")
    assert torch.equal(model[0].weight, before)


def test_a_checkpoint_that_fails_half_way_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    optimizer, scaler = build_optimizer(model, [], TrainSection()), torch.amp.GradScaler("cpu", enabled=False)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, Progress(step=step), model, optimizer, scaler, "")
    kept = [path.name for path in checkpoints(tmp_path)]
    assert len(kept) == 2

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("visionlora.training.checkpoint.write_tensors", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, Progress(step=4), model, optimizer, scaler, "")
    assert [path.name for path in checkpoints(tmp_path)] == kept
    assert load_checkpoint(read_checkpoint(checkpoints(tmp_path)[-1]), model, optimizer, scaler, "").step == 3


def test_a_device_that_is_not_there_is_refused() -> None:
    assert pick_device("cpu").type == "cpu"
    for name in ("cuda:99", "meta", "gpu"):
        with pytest.raises(InputError, match=f"device '{name}'"):
            pick_device(name)
