"""A detector's file whose findings are known: it never trained, and finds ``clips.scene``'s blocks by colour."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.detection_runs import BASE
from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.model import attach
from visionlora.adapters.saving import save_adapter
from visionlora.config import check_config
from visionlora.tasks.registry import task_of

CLASSES = ["green", "red"]


def write_finder(folder: Path, **about_it: Any) -> Path:
    """An adapter's file of a detector of ``CLASSES``; keywords are what it says of itself besides."""
    section = check_config(
        {
            "task": "detection",
            "model": {**BASE, "levels": [3, 4, 5], "fpn_channels": 32, "head_convs": 1, "size": 64},
            "data": {"annotations": "none.json"},
        }
    ).model
    detector = task_of("detection").build(section, CLASSES)
    attach(detector.model, LoRAConfig(rank=1, targets=["backbone.body.conv1.*"], unfreeze=detector.head))
    about = {"task": "detection", "model": section.model_dump(mode="json"), **about_it}
    preprocessing = {"size": 64, "tile": None, "tile_overlap": 0}
    path = folder / "finder.safetensors"
    save_adapter(detector.model, path, classes=CLASSES, preprocessing=preprocessing, extra=about)
    return path


def find_blocks(trained: Any, images: Sequence[np.ndarray], thresholds: Sequence[float], device: Any) -> list[Any]:
    """The green block with a score of 0.9, the red one with 0.6, where these reach the thresholds."""
    found = []
    for image in images:
        boxes, labels, scores = [], [], []
        for label, (channel, score) in enumerate(((1, 0.9), (0, 0.6))):
            others = [other for other in range(3) if other != channel]
            rows, columns = np.nonzero(image[..., channel] > image[..., others].max(axis=2) + 60.0)
            if len(rows) > 40 and score >= thresholds[label]:
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                labels.append(label)
                scores.append(score)
        found.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
                "scores": torch.tensor(scores, dtype=torch.float32),
            }
        )
    return found
