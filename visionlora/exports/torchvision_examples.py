"""The Python that the README of a torchvision folder shows after loading the model."""

from visionlora.exports.source import Source

_OPEN = (
    "from PIL import Image\nfrom torchvision.transforms import functional as F\n"
    'image = Image.open("image.jpg").convert("RGB")'
)


def example(source: Source) -> str:
    """Python that goes on from the loader, from an image file to what is in it."""
    return {"classification": _classes, "detection": _objects, "segmentation": _pixels}[source.trained.task](source)


def _classes(source: Source) -> str:
    pre, classes = source.trained.preprocessing, source.trained.classes
    resized = [int(side / pre.crop_pct) for side in (pre.height, pre.width)]
    size = resized[:1] if pre.crop_mode != "squash" and resized[0] == resized[1] else resized
    pick = f"{classes!r}[logits.argmax()]"
    if source.trained.multilabel:
        pick = f"[name for name, logit in zip({classes!r}, logits[0]) if logit > 0]"
    return (
        f"{_OPEN}\n"
        f"image = F.resize(image, {size}, F.InterpolationMode({pre.interpolation!r}))\n"
        f"image = F.to_tensor(F.center_crop(image, {[pre.height, pre.width]}))\n"
        f"logits = model(F.normalize(image, {list(pre.mean)}, {list(pre.std)})[None])\n"
        f"print({pick})"
    )


def _objects(source: Source) -> str:
    labels = source.trained.built.model_labels
    names = dict(zip(labels, source.trained.classes, strict=True))
    return (
        f"{_shrunk(source.trained.preprocessing.size)}\n"
        "found = model([F.to_tensor(shown)])[0]\n"
        "for box, label, score in zip(found['boxes'] / scale, found['labels'].tolist(), found['scores'].tolist()):\n"
        f"    print({names!r}.get(label), round(score, 3), box.tolist())"
    )


def _pixels(source: Source) -> str:
    pre = source.trained.preprocessing
    out = '["out"]' if source.library == "torchvision" else ""
    return (
        f"{_shrunk(pre.size)}\n"
        f"logits = model(F.normalize(F.to_tensor(shown), {list(pre.mean)}, {list(pre.std)})[None]){out}[0]\n"
        f"classes = {source.trained.classes!r}\n"
        "print([classes[index] for index in logits.argmax(0).unique()])  # logits (classes, h, w)"
    )


def _shrunk(size: int) -> str:
    return (
        f"{_OPEN}\n"
        f"scale = {size} / max(image.size)\n"
        "shown = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)"
    )
