"""Python that shows how to use a plain classifier."""

from visionlora.tasks.classification.inference import TrainedClassifier, is_multilabel
from visionlora.tasks.example_code import OPEN


def torchvision_example(trained: TrainedClassifier) -> str:
    """Python that goes on from a classifier of torchvision's to the name of an image's class."""
    pre, classes = trained.preprocessing, trained.classes
    resized = [int(side / pre.crop_pct) for side in (pre.height, pre.width)]
    size = resized[:1] if pre.crop_mode != "squash" and resized[0] == resized[1] else resized
    pick = f"{classes!r}[logits.argmax()]"
    if is_multilabel(trained):
        pick = f"[name for name, logit in zip({classes!r}, logits[0]) if logit > 0]"
    return (
        f"{OPEN}\n"
        f"image = F.resize(image, {size}, F.InterpolationMode({pre.interpolation!r}))\n"
        f"image = F.to_tensor(F.center_crop(image, {[pre.height, pre.width]}))\n"
        f"logits = model(F.normalize(image, {list(pre.mean)}, {list(pre.std)})[None])\n"
        f"print({pick})"
    )
