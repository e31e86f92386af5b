"""What a run imports when it needs it, which takes seconds."""

from functools import cache
from importlib import import_module


@cache
def import_all() -> None:
    """Before a process is forked: else each one would import it anew."""
    for name in (
        "matplotlib.backends.backend_agg",
        "tensorboard.compat.proto.summary_pb2",
        "torch.utils.tensorboard.summary",
        "torchmetrics.classification",
        "torchmetrics.detection",
        "visionlora.tasks.classification.task",
        "visionlora.tasks.detection.task",
        "visionlora.tasks.segmentation.task",
        "visionlora.training.run",
    ):
        import_module(name)
