"""``visionlora inspect``."""

from dataclasses import replace

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.model import attach
from visionlora.models.classifier import create_classifier


def inspect(name: str, rank: int, targets: list[str], classes: int) -> None:
    """Print the report of an adapter that is attached and thrown away."""
    config = LoRAConfig(rank=rank, targets=targets)  # checked before the model is built
    classifier = create_classifier(name, classes, pretrained=False)
    report = attach(classifier.model, replace(config, unfreeze=classifier.head))
    _, height, width = classifier.data_config["input_size"]
    settings = classifier.data_config
    size = f"{report.total:,} parameters ({report.total * 4 / 1e6:.1f} MB in float32)"
    print(f"{name}: {size}, images of {height} x {width}")
    print(f"mean {tuple(settings['mean'])}, std {tuple(settings['std'])}, {settings['interpolation']}\n")
    print(report)
