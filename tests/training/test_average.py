"""The moving average of what trains: by a plain loop, in evaluation, in the file and in checkpoints."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import visionlora as vl
from helpers.runs import make_config, make_images
from visionlora.errors import InputError
from visionlora.sections import TrainSection
from visionlora.tasks.trained import ADAPTER
from visionlora.training.average import Average
from visionlora.training.checkpoint import Progress, checkpoints, load_checkpoint, read_checkpoint, save_checkpoint
from visionlora.training.folder import CHECKPOINTS
from visionlora.training.optimizer import build_optimizer
from visionlora.training.run import train


def adapted(batchnorm: str = "train") -> nn.Module:
    model = timm.create_model("test_resnet", num_classes=3, zero_init_last=False)
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["fc"], batchnorm=batchnorm))
    return model.train()


def moved(model: nn.Module) -> dict[str, torch.Tensor]:
    """Take a step of sorts, and return what trains and BatchNorm's statistics."""
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad.sign()
                parameter.grad = None
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if name in trains or name.endswith(("running_mean", "running_var"))
    }


def test_it_is_what_a_plain_loop_gives_and_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = adapted()
    average, expected = Average(model, 0.8), None
    for step in range(1, 40):
        now = moved(model)
        if expected is None:
            expected = {name: average.tensors[name].clone() for name in now}
        decay = min(0.8, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * tensor for name, tensor in now.items()}
        average.update(step)
    assert expected is not None and average.tensors.keys() == expected.keys()
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor, expected[name])
    with average.aside(), average.shown():
        shown = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with average.shown(), average.aside():
            assert all(torch.equal(shown[name], tensor) for name, tensor in model.state_dict().items())
        with average.aside():  # as for a checkpoint in the middle of an evaluation
            assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in now.items())
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in average.tensors.items())
    assert all(torch.equal(shown[name], tensor) for name, tensor in average.tensors.items())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in now.items())
    frozen = [name for name in shown if name not in average.tensors]
    assert frozen and all(torch.equal(shown[name], model.state_dict()[name]) for name in frozen)


def test_it_holds_no_frozen_tensor() -> None:
    model = adapted("frozen")
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(Average(model, 0.9).tensors) == trains
    assert not Average(model, 0.0).tensors


def test_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    model = adapted()
    optimizer, scaler = build_optimizer(model, ["fc"], TrainSection()), torch.amp.GradScaler("cpu", enabled=False)
    average = Average(model, 0.9)
    moved(model)
    average.update(1)
    save_checkpoint(tmp_path, Progress(step=1), model, optimizer, scaler, "", average=average)
    found, expected = read_checkpoint(checkpoints(tmp_path)[-1]), {n: t.clone() for n, t in average.tensors.items()}
    moved(model)
    average.update(2)
    load_checkpoint(found, model, optimizer, scaler, "", average=average)
    assert all(torch.equal(average.tensors[name], tensor) for name, tensor in expected.items())
    other = Average(adapted("frozen"), 0.9)
    with pytest.raises(InputError, match="its average is of other tensors"):
        load_checkpoint(found, model, optimizer, scaler, "", average=other)


def test_a_run_evaluates_and_saves_it(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=3, val=2)
    result = train(make_config(images, tmp_path / "run", ema=0.9, epochs=2), quiet=True)
    newest = read_checkpoint(checkpoints(tmp_path / "run" / CHECKPOINTS)[-1])
    averages = {key.removeprefix("average/") for key in newest.tensors if key.startswith("average/")}
    own = {key.removeprefix("model/") for key in newest.tensors if key.startswith("model/")}
    assert averages == {key for key in own if "lora_" in key or key.startswith("fc.")}
    header = vl.read_header(tmp_path / "run" / ADAPTER)
    assert header.extra["scores"] == pytest.approx(result.scores)
    if result.best_epoch == 2:  # what is in the file is the average, and not the model
        trained = vl.load_trained(tmp_path / "run").model.state_dict()
        assert torch.equal(trained["fc.weight"], newest.tensors["average/fc.weight"])
        assert not torch.equal(trained["fc.weight"], newest.tensors["model/fc.weight"])


def test_it_may_not_change_when_a_run_goes_on(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=2, val=2)
    train(make_config(images, tmp_path / "run", ema=0.9, epochs=1), quiet=True)
    with pytest.raises(InputError, match=r"can't resume with other settings: train\.ema \(0\.9, now 0\.5\)"):
        train(make_config(images, tmp_path / "run", ema=0.5, epochs=2), resume=True, quiet=True)
