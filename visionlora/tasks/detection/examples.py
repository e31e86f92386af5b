"""Python that makes a plain detector of torchvision's, and shows how to use one."""

from typing import Any

import torch
from torch import nn

from visionlora.models.detector import Detector
from visionlora.tasks.detection.inference import TrainedDetector
from visionlora.tasks.example_code import model_code, shrunk


def torchvision_code(trained: TrainedDetector) -> str:
    """Python that makes the plain ``model`` with torchvision alone."""
    code = model_code(trained.about["model"]["name"], _detector_options(trained.built))
    if eps := _unusual_eps(trained.model):
        # torchvision builds its pretrained detectors so, and only those.
        code += (
            "\nimport torch\nfor module in model.modules():\n    if isinstance(module, torch.nn.BatchNorm2d):"
            f"\n        module.eps = {eps!r}"
        )
    return code


def torchvision_example(trained: TrainedDetector) -> str:
    """Python that goes on from the plain model to the objects in an image."""
    labels = trained.built.model_labels
    names = dict(zip(labels, trained.classes, strict=True))
    return (
        f"{shrunk(trained.preprocessing.size)}\n"
        "found = model([F.to_tensor(shown)])[0]\n"
        "for box, label, score in zip(found['boxes'] / scale, found['labels'].tolist(), found['scores'].tolist()):\n"
        f"    print({names!r}.get(label), round(score, 3), box.tolist())"
    )


def _detector_options(detector: Detector) -> dict[str, Any]:
    transform: Any = detector.model.transform
    # With the gaps of COCO's own numbers too, the last label is the last output.
    options: dict[str, Any] = {"num_classes": max(detector.model_labels) + 1}
    if transform.fixed_size is None:
        options |= {"min_size": transform.min_size[-1], "max_size": transform.max_size}
    return {**options, "image_mean": list(transform.image_mean), "image_std": list(transform.image_std)}


def _unusual_eps(model: nn.Module) -> float | None:
    found = {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    tiny = torch.finfo(torch.float32).tiny
    return tiny if tiny in found else None
