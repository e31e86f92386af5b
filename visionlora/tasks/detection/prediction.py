"""What a detector finds in one image, as ``visionlora predict`` shows and writes it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionlora.data.detection.tile_joining import Detections
from visionlora.tasks.detection.figures import draw_detections
from visionlora.tasks.detection.results import to_results
from visionlora.tasks.protocols import Prediction


@dataclass(frozen=True)
class ImageObjects(Prediction):
    """See ``tasks.protocols.Prediction``."""

    found: Detections
    classes: list[str]

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        """COCO's results; ``category_id`` counts the classes from 1."""
        return to_results(self.found, image_id, range(1, len(self.classes) + 1))

    def tally(self) -> Mapping[str, float]:
        """Class -> how many objects."""
        return Counter(self.classes[label] for label in self.found["labels"].tolist())

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """The image with boxes, and masks where there are some."""
        boxes, labels, scores = self.found["boxes"], self.found["labels"], self.found["scores"]
        return draw_detections(image, boxes, labels, scores, self.found.get("masks"), self.classes)
