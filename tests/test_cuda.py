"""The same on a GPU: numbers, training of every task, memory that runs out, compiled steps and CUDA graphs."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import LAYERS_WITH_METHODS, MODELS, LayerCase, ModelCase, perturb, wake
from helpers.comparing import agree, gradients
from helpers.detection_runs import make_detection_config, make_scenes
from helpers.fleets import difference, one_by_one, save_cameras
from helpers.folded_models import lively
from helpers.runs import interrupt, losses, make_config, make_images
from helpers.segmentation_runs import make_masks, make_segmentation_config
from visionlora.config import check_config
from visionlora.sections import RunConfig
from visionlora.training.checkpoint import checkpoints, read_checkpoint
from visionlora.training.folder import CHECKPOINTS, CONFIG
from visionlora.training.run import train

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU, or VISIONLORA_TEST_GPU=1 is not set: make test-gpu"
)

TASKS = ("classification", "detection", "segmentation")
CONVOLUTIONAL = ("timm_test_resnet", "timm_test_efficientnet", "timm_tf_efficientnet_lite0", "timm_test_byobnet")


def there(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in values.items()}


def same_on_both(model: nn.Module, x: Tensor, tolerance: float = 1e-9, **move: Any) -> None:
    """Outputs and all gradients, in float64."""
    expected = gradients(model, x)
    moved = copy.deepcopy(model).to("cuda", **move)
    agree(there(gradients(moved, x.to("cuda", **move))), expected, tolerance)


@pytest.mark.parametrize(("case", "method"), LAYERS_WITH_METHODS, ids=lambda each: getattr(each, "name", each))
def test_layers(case: LayerCase, method: str) -> None:
    model = nn.Sequential(wake(case.make())).double().eval()
    vl.attach(model, vl.LoRAConfig(rank=2, method=method))
    perturb(model, 0.1)
    same_on_both(model, torch.randn(case.shape, dtype=torch.float64))


@pytest.mark.parametrize("route", ["factored", "dense"])
@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_models_folded(case: ModelCase, route: str) -> None:
    model, x = lively(wake(case.make())).double().eval(), torch.randn(2, 3, case.size, case.size).double()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model)
    vl.set_route(model, route)
    vl.fold_batchnorm(model, x)
    same_on_both(model, x, 1e-6)  # hardswish has constants in float32 there


@pytest.mark.parametrize("case", [c for c in MODELS if c.name in CONVOLUTIONAL], ids=lambda case: case.name)
def test_channels_last(case: ModelCase) -> None:
    model, x = lively(wake(case.make())).double().eval(), torch.randn(2, 3, case.size, case.size).double()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model)
    vl.fold_batchnorm(model, x)
    same_on_both(model, x, 1e-7, memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_autocast_is_near_the_whole_precision(case: ModelCase, dtype: torch.dtype) -> None:
    model, x = wake(case.make()).eval().cuda(), torch.randn(2, 3, case.size, case.size).cuda()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model)
    expected = model(x).detach()
    with torch.autocast("cuda", dtype=dtype):
        found = model(x)
    assert found.dtype == dtype or found.dtype == torch.float32
    found.float().sum().backward()
    assert (found - expected).norm() <= 0.1 * expected.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_a_step_never_waits_for_the_gpu(case: ModelCase) -> None:
    model, x = wake(case.make()).train().cuda(), torch.randn(2, 3, case.size, case.size).cuda()
    vl.attach(model, vl.LoRAConfig(rank=2))
    vl.fold_batchnorm(model, x)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    for strict in (False, True):  # what is made once may wait
        torch.cuda.set_sync_debug_mode("error" if strict else "default")
        try:
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("case", [c for c in MODELS if "vit" in c.name or "resnet" in c.name], ids=lambda c: c.name)
def test_a_fleets_mixed_batch(case: ModelCase, tmp_path: Path) -> None:
    base = wake(case.make()).double().eval()
    files = save_cameras(base, tmp_path, {}, {"rank": 3}, {}, scale=0.05)
    cameras = ["camera2", "camera0", "camera1", "camera0"]
    images = torch.randn(4, 3, case.size, case.size, dtype=torch.float64).cuda()
    fleet = vl.Fleet(base.cuda(), files)
    assert difference(fleet(images, cameras), torch.cat(one_by_one(fleet, images, cameras))) < 1e-9


def config_of(task: str, root: Path, out: Path, **settings: Any) -> RunConfig:
    given = {"log_every": 1, "epochs": 2, "device": "cuda", **settings}
    if task == "detection":
        path = root / "scenes.json"
        return make_detection_config(path if path.exists() else make_scenes(root), out, {"name": "retinanet"}, **given)
    if task == "segmentation":
        return make_segmentation_config(root if root.exists() else make_masks(root), out, **given)
    return make_config(root if root.exists() else make_images(root, train=4, val=2), out, **given)


@pytest.mark.parametrize("autocast", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_the_cpus(task: str, autocast: str, tmp_path: Path) -> None:
    found = train(config_of(task, tmp_path / "data", tmp_path / "gpu", autocast=autocast), quiet=True)
    expected = train(config_of(task, tmp_path / "data", tmp_path / "cpu", device="cpu"), quiet=True)
    assert len(losses(found.folder)) == len(losses(expected.folder))
    assert losses(found.folder)[0] == pytest.approx(losses(expected.folder)[0], rel=0.05)
    assert found.scores.keys() == expected.scores.keys()


@pytest.mark.parametrize("task", TASKS)
def test_a_stopped_run_goes_on(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(config_of(task, tmp_path / "data", tmp_path / "whole"), quiet=True)
    config = config_of(task, tmp_path / "data", tmp_path / "stopped")
    interrupt(config, monkeypatch, step=3)
    train(config, resume=True, quiet=True)
    # cuDNN's and atomic sums come in any order.
    assert losses(config.out) == pytest.approx(losses(whole.folder), rel=0.05)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """700 MiB beside what is there are all that the GPU gives."""
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 700 * 2**20) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def large(images: Path, out: Path, batch_size: int | str) -> RunConfig:
    config = make_config(images, out, epochs=1, device="cuda")
    settings = config.model_dump(mode="json")
    settings["model"] |= {"name": "resnet18", "img_size": 224}
    settings["train"] |= {"batch_size": batch_size}
    return check_config(settings)


def test_memory_that_runs_out_makes_smaller_parts(tmp_path: Path, little_memory: None) -> None:
    images = make_images(tmp_path / "images", train=48, val=1)
    with (tmp_path / "said").open("w") as said:
        result = train(large(images, tmp_path / "run", 144), console=Console(file=said, width=300))
    assert "out of memory with 144 images at a time" in (tmp_path / "said").read_text()
    found = read_checkpoint(checkpoints(result.folder / CHECKPOINTS)[-1]).progress
    assert 0 < found.micro_batch < 144 and found.step == 1


def test_the_largest_batch_is_found(tmp_path: Path, little_memory: None) -> None:
    images = make_images(tmp_path / "images", train=48, val=1)
    result = train(large(images, tmp_path / "run", "auto"), quiet=True)
    text = (result.folder / CONFIG).read_text()
    assert any(f"batch_size: {size}\n" in text for size in (4, 8, 16, 32, 64)), text


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_steps_are_the_plain_ones(mode: str, tmp_path: Path) -> None:
    plain = train(config_of("classification", tmp_path / "data", tmp_path / "plain"), quiet=True)
    compiled = train(config_of("classification", tmp_path / "data", tmp_path / mode, compile=mode), quiet=True)
    assert losses(compiled.folder) == pytest.approx(losses(plain.folder), rel=0.05)


def test_a_graph_of_a_step_is_replayed() -> None:
    """Forward and backward are recorded by hand, as people do around small models."""
    model, x = MODELS[0].make().cuda().train(), torch.randn(4, 3, 64, 64).cuda()
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model)
    vl.fold_batchnorm(model, x)
    trained = [p for p in model.parameters() if p.requires_grad]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            model(x).square().mean().backward()
            for p in trained:
                p.grad = None
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = model(x).square().mean()
        loss.backward()
    x.normal_()
    graph.replay()
    recorded = [p.grad.clone() for p in trained if p.grad is not None]
    expected = model(x).square().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    for found, wanted in zip(recorded, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-4)
