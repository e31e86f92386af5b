"""``visionlora inspect``."""

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.model import attach
from visionlora.models.classifier import create_classifier


def inspect(name: str, rank: int, targets: list[str], classes: int) -> None:
    """Print the report of an adapter that is attached and thrown away."""
    config = LoRAConfig(rank=rank, targets=targets)
    classifier = create_classifier(name, classes, pretrained=False)
    total = sum(parameter.numel() for parameter in classifier.model.parameters())
    _, height, width = classifier.data_config["input_size"]
    settings = classifier.data_config
    print(f"{name}: {total:,} parameters ({total * 4 / 1e6:.1f} MB in float32), images of {height} x {width}")
    print(f"mean {tuple(settings['mean'])}, std {tuple(settings['std'])}, {settings['interpolation']}\n")
    unfrozen = LoRAConfig(**{**config.to_dict(), "unfreeze": classifier.head})
    print(attach(classifier.model, unfrozen))
