"""Python that shows how to use a plain segmenter."""

from visionlora.tasks.example_code import shrunk
from visionlora.tasks.segmentation.inference import TrainedSegmenter


def torchvision_example(trained: TrainedSegmenter, library: str) -> str:
    """Python that goes on from the plain model to the classes in an image."""
    pre = trained.preprocessing
    out = '["out"]' if library == "torchvision" else ""
    return (
        f"{shrunk(pre.size)}\n"
        f"logits = model(F.normalize(F.to_tensor(shown), {list(pre.mean)}, {list(pre.std)})[None]){out}[0]\n"
        f"classes = {trained.classes!r}\n"
        "print([classes[index] for index in logits.argmax(0).unique()])  # logits (classes, h, w)"
    )
