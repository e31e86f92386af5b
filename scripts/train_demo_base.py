"""Train the base model of the demo from random weights on generated day-time scenes (CPU, a few minutes)."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import timm
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch.nn import functional as F

from visionlora.demo.base import ARCHITECTURE, INPUT_SIZE, MEAN, STD, base_path
from visionlora.demo.scenes import CLASSES, DAY, NIGHT, Camera, make_scene
from visionlora.files import write_atomic


def other_day_cameras(count: int) -> list[Camera]:
    """Cameras like DAY in other streets: a base that has seen one street only knows that street by heart."""
    cameras = []
    for street in range(100, 100 + count):
        rng = np.random.default_rng(street)
        height, distance, yaw, pitch, zoom = rng.uniform((4, 7, -20, 12, 0.95), (6, 9, 20, 19, 1.1)).tolist()
        view = {"height": height, "distance": distance, "yaw": yaw, "pitch": pitch, "zoom": zoom}
        cameras.append(dataclasses.replace(DAY, name=f"day-{street}", street=street, **view))
    return cameras


def scenes(cameras: list[tuple[Camera, int]], seed: int, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The first n scenes of each (camera, n): images (N, 3, H, W) uint8 and labels (N,)."""
    wanted = [(camera, index) for camera, n in cameras for index in range(n)]
    size = INPUT_SIZE[1]
    made = [make_scene(camera, seed, index, size) for camera, index in track(wanted, f"{what:12}")]
    images = torch.from_numpy(np.stack([scene.image for scene in made])).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([scene.label for scene in made])


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Flipped at random, moved by up to 4 pixels, up to 15% brighter or darker; (N, 3, H, W), 0 to 255."""
    flip = torch.rand(len(images), 1, 1, 1) < 0.5
    images = torch.where(flip, images.flip(-1), images).float()
    down, right = torch.randint(0, 9, (2,)).tolist()
    height, width = images.shape[-2:]
    padded = F.pad(images, (4, 4, 4, 4), mode="replicate")[..., down : down + height, right : right + width]
    return (padded * (0.85 + 0.3 * torch.rand(len(images), 1, 1, 1))).clamp(0, 255)


@torch.no_grad()
def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    answers = torch.cat([model(normalised(batch)).argmax(1) for batch in images.split(128)])
    return (answers == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=base_path())
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="another number rounds differently: other weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    cameras = [(DAY, 1200), *((camera, 480) for camera in other_day_cameras(10))]
    images, labels = scenes(cameras, args.seed, "train")
    day = scenes([(DAY, 600)], args.seed + 1, "fresh day")
    night = scenes([(NIGHT, 600)], args.seed + 1, "fresh night")

    # timm starts the last BatchNorm of each block at 0; from 1 the model learns faster
    model = timm.create_model(ARCHITECTURE, num_classes=len(CLASSES), zero_init_last=False)
    batch, rate = 32, 3e-3
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    steps = args.epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    for epoch in range(args.epochs):
        model.train()
        for chosen in track(torch.randperm(len(images)).split(batch), f"epoch {epoch + 1}/{args.epochs}   "):
            loss = F.cross_entropy(model(normalised(augmented(images[chosen]))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    # Rounded to half precision before it is judged: that is what the file holds, to be small.
    model.half().float()
    on_day, on_night = accuracy(model, *day), accuracy(model, *night)
    header = {
        "architecture": ARCHITECTURE,
        "classes": json.dumps(CLASSES),
        "input_size": json.dumps(INPUT_SIZE),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "made_by": f"scripts/train_demo_base.py --epochs {args.epochs} --seed {args.seed} --threads {args.threads}",
        "day_accuracy": f"{on_day:.4f}",
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.half().state_dict().items()}
    write_atomic(args.output, lambda path: save_file(tensors, path, metadata=header))
    print(f"fresh day scenes {on_day:.3f}, night scenes {on_night:.3f}; wrote {args.output}")


if __name__ == "__main__":
    main()
