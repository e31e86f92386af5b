"""Use an exported model.onnx with numpy, pillow and onnxruntime alone.

    python predict.py model.onnx IMAGE ...

or in a program: ``Model("model.onnx")("image.jpg")``. Preprocessing, class names and thresholds are in the file. A file
with a fleet's cameras in it wants the name of one: ``python predict.py --camera gate model.onnx IMAGE ...`` or
``Model("model.onnx", camera="gate")``.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

READING = ("classes", "preprocessing", "about")
"""What one must know to read a model's outputs."""


class Model:
    """A model from one file.

    Calling it with an image (a path, or (H, W, 3) uint8 RGB) gives, by task:

    - classification: ``{class: probability}``, the likeliest first;
    - detection: a list of ``{"class", "score", "box"}``, the box as x1, y1, x2, y2 in pixels of the image, with
      ``"mask"`` (H, W) bool where the model makes masks;
    - segmentation: (H, W) uint8, the index of each pixel's class in ``classes``;
    - any other: the model's raw outputs.
    """

    def __init__(self, path: str | Path, camera: str | None = None) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        fields = self.session.get_modelmeta().custom_metadata_map
        self.task = fields["task"]
        cameras = json.loads(fields.get("cameras", "{}"))
        if camera not in (cameras or {None: 0}):
            raise ValueError(f"{path}: no camera {camera}; there are {', '.join(cameras) or 'none'}")
        # Beside the images, what a fleet's graph takes: the camera's index.
        self.more = {"camera": np.array([list(cameras).index(camera)])} if cameras else {}
        of_camera = cameras.get(camera) or {name: json.loads(fields[name]) for name in READING}
        self.classes, self.preprocessing, self.about = (of_camera[name] for name in READING)

    def __call__(self, image: str | Path | np.ndarray) -> Any:
        image = image if isinstance(image, np.ndarray) else read_image(image)
        tensor = to_input(image, self.preprocessing)  # (3, h, w) float32
        if self.task == "detection":
            run = self._from_heads if "heads" in self.about else self._from_graph
            return self._detections(run(tensor), tensor.shape[1:], image.shape[:2])
        logits = self.session.run(None, {"images": tensor[None], **self.more})[0][0]
        if self.more:
            logits = logits[: len(self.classes)]
        if self.task == "segmentation":
            return resize(logits, *image.shape[:2]).argmax(axis=0).astype(np.uint8)
        if self.task != "classification":
            return logits
        scores = 1 / (1 + np.exp(-logits)) if self.about.get("multilabel") else softmax(logits)
        return {self.classes[index]: float(scores[index]) for index in np.argsort(-scores, kind="stable")}

    def _from_graph(self, tensor: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self.session.run(None, {"image": tensor})
        return outputs

    def _from_heads(self, tensor: np.ndarray) -> list[np.ndarray]:
        from heads import objects, on_canvas  # the file beside this one

        about = self.about["heads"]
        values = self.session.run(None, {"images": on_canvas([tensor], about)})
        outputs = dict(zip((output.name for output in self.session.get_outputs()), values, strict=True))
        boxes, labels, scores = objects(outputs, 0, tensor.shape[1], tensor.shape[2], about)
        return [boxes, labels, scores]

    def _detections(
        self, outputs: list[np.ndarray], seen: tuple[int, ...], original: tuple[int, ...]
    ) -> list[dict[str, Any]]:
        boxes, labels, scores, *masks = outputs
        known = {label: index for index, label in enumerate(self.about["model_labels"])}
        scale = np.array([original[1] / seen[1], original[0] / seen[0]] * 2, np.float32)
        found = []
        for number, (box, label, score) in enumerate(zip(boxes * scale, labels.tolist(), scores.tolist(), strict=True)):
            name = self.classes[known[label]] if label in known else None
            if name is None or score < self.about["thresholds"][name]:
                continue
            found.append({"class": name, "score": score, "box": box.tolist()})
            if masks:
                found[-1]["mask"] = resize(masks[0][number], *original)[0] >= 0.5
        return found


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits of grey, which PIL would cut off at 255
            grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        return np.array((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))


def to_input(image: np.ndarray, pre: dict[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, h, w) float32, as the model was trained on."""
    if "crop_pct" in pre:
        return normalise(np.asarray(cropped(Image.fromarray(image), pre)), pre["mean"], pre["std"])
    if side := pre.get("tile") or pre.get("window"):
        raise ValueError(f"this model looks at windows of {side} pixels; use visionlora predict, which joins them")
    if "size" not in pre:
        raise ValueError("this model's preprocessing is its task's own; use visionlora predict")
    shown = fitted(image, pre["size"])
    if "mean" in pre:
        return normalise(shown, pre["mean"], pre["std"])
    return np.ascontiguousarray(shown.transpose(2, 0, 1), np.float32) / np.float32(255)  # normalised in the model


def normalise(pixels: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    """(h, w, 3) uint8 -> (3, h, w) float32."""
    centre, scale = (np.array(values, np.float32).reshape(3, 1, 1) for values in (mean, std))
    shares = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)
    result: np.ndarray = (shares - centre) / scale
    return result


def fitted(image: np.ndarray, size: int) -> np.ndarray:
    """The whole image, its longest side resized to ``size``."""
    height, width = image.shape[:2]
    scale = size / max(width, height)
    sides = max(2, round(width * scale)), max(2, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR))


def cropped(image: Image.Image, pre: dict[str, Any]) -> Image.Image:
    """timm's evaluation transform of a PIL image, up to the crop."""
    height, width = pre["height"], pre["width"]
    tall, wide = math.floor(height / pre["crop_pct"]), math.floor(width / pre["crop_pct"])
    method = Image.Resampling[pre["interpolation"].upper()]
    if pre["crop_mode"] == "squash":
        sides = wide, tall
    elif pre["crop_mode"] == "center" and tall == wide:
        short, long = sorted(image.size)
        sides = (tall, int(tall * long / short)) if image.width <= image.height else (int(tall * long / short), tall)
    else:
        ratios = image.height / tall, image.width / wide
        ratio = max(ratios) if pre["crop_mode"] == "border" else min(ratios)
        sides = round(image.width / ratio), round(image.height / ratio)
    resized = image.resize(sides, method) if sides != image.size else image
    # Where the image is smaller, timm's crop fills up around it.
    left, top = (
        -((wanted - side) // 2) if side < wanted else round((side - wanted) / 2)
        for side, wanted in ((resized.width, width), (resized.height, height))
    )
    fill = tuple(round(255 * value) for value in pre["mean"]) if pre["crop_mode"] == "border" else (0, 0, 0)
    canvas = Image.new("RGB", (width, height), fill)
    canvas.paste(resized, (-left, -top))
    return canvas


def resize(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, h, w) -> (C, height, width) float32, bilinearly between pixel centres, without averaging."""
    columns, rows = _between(maps.shape[2], width), _between(maps.shape[1], height)
    across = maps[:, :, columns[0]] * (1 - columns[2]) + maps[:, :, columns[1]] * columns[2]
    result: np.ndarray = across[:, rows[0]] * (1 - rows[2])[:, None] + across[:, rows[1]] * rows[2][:, None]
    return result


def _between(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    place = np.maximum((np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - 0.5, 0)
    low = np.minimum(place.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), (place - low).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """(C,) -> (C,) that sum to 1."""
    raised = np.exp(logits - logits.max())
    result: np.ndarray = raised / raised.sum()
    return result


def main() -> None:
    arguments = sys.argv[1:]
    camera = None
    if arguments[:1] == ["--camera"]:
        _, camera, *arguments = arguments
    model = Model(arguments[0], camera)
    for path in arguments[1:]:
        found = model(path)
        if model.task == "segmentation":
            shares = np.bincount(found.ravel(), minlength=len(model.classes)) / found.size
            found = dict(zip(model.classes, shares.tolist(), strict=True))
        print(path, found)


if __name__ == "__main__":
    main()
