"""The tasks there are."""

from typing import Any

from visionlora.tasks.classification import task as classification
from visionlora.tasks.detection import task as detection
from visionlora.tasks.segmentation import task as segmentation

TASKS: dict[str, Any] = {"classification": classification, "detection": detection, "segmentation": segmentation}
"""Task -> its module, which has ``set_up(config)`` for a run, and to bring back what one trained
``build(section, classes)``, ``without_base(section, path)`` and ``read_preprocessing(values)``."""
