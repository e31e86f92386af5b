"""Two processes with DistributedDataParallel take the step that one process takes on the joined batch."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import visionlora as vl
from helpers.cases import perturb


def make() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.GELU(), nn.Conv2d(8, 6, 1, stride=2)),
        *(nn.Flatten(), nn.Linear(24, 5)),
    )
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["7"]))
    perturb(model)
    assert vl.fold_batchnorm(model, torch.randn(1, 3, 6, 6)) == ["1"]
    return model.train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 6, 6, generator=generator), torch.randn(4, 5, generator=generator)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def work(rank: int, port: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = DistributedDataParallel(make())
    images, targets = (part.chunk(2)[rank] for part in batch())
    (model(images) - targets).square().mean().backward()
    torch.save(gradients(model.module), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, tmp_path), nprocs=2)
    model = make()
    images, targets = batch()
    (model(images) - targets).square().mean().backward()
    expected = gradients(model)
    assert sum(".lora_" in name for name in expected) == 6 and all(g.abs().sum() > 0 for g in expected.values())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], msg=name)


def test_fp16_autocast_with_a_scaler_takes_the_float32_step_nearly() -> None:
    factors = {}
    for autocast in (False, True):
        model = make()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=autocast)
        images, targets = batch()
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            out = model(images)
        assert out.dtype == (torch.float16 if autocast else torch.float32)
        before = torch.cat([p.detach().flatten() for p in trained])
        scaler.scale((out.float() - targets).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert all(p.dtype == torch.float32 for p in trained)
        factors[autocast] = torch.cat([p.detach().flatten() for p in trained]) - before
    difference = torch.linalg.vector_norm(factors[True] - factors[False])
    assert 0 < difference < 0.02 * torch.linalg.vector_norm(factors[False])
