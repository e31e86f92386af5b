"""The small base model that ships with the package; scripts/train_demo_base.py made it."""

from importlib.resources import files
from pathlib import Path

ARCHITECTURE = "test_resnet"  # timm's name; num_classes=len(scenes.CLASSES)
INPUT_SIZE = (3, 96, 96)
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


def base_path() -> Path:
    """The file of its weights: safetensors, float16, the keys of the plain timm model."""
    return Path(str(files("visionlora.demo") / "base.safetensors"))
