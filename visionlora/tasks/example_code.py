"""Python that a README shows, which the tasks' examples have in common."""

from typing import Any

from visionlora.models.torchvision_models import PREFIX

OPEN = (
    "from PIL import Image\nfrom torchvision.transforms import functional as F\n"
    'image = Image.open("image.jpg").convert("RGB")'
)
"""An image file -> ``image``."""


def shrunk(size: int) -> str:
    """Then ``shown``, whose longest side has ``size`` pixels, and ``scale``."""
    return (
        f"{OPEN}\n"
        f"scale = {size} / max(image.size)\n"
        "shown = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)"
    )


def model_code(name: str, options: dict[str, Any]) -> str:
    """Python that makes the plain ``model`` with torchvision alone, without weights."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return (
        "import torchvision\nmodel = torchvision.models.get_model("
        f"{name.removeprefix(PREFIX)!r}, weights=None, weights_backbone=None, {arguments})"
    )
