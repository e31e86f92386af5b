"""What a segmenter finds in one image, as ``visionlora predict`` shows and writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionlora.data.segmentation.mask_files import write_mask
from visionlora.tasks.protocols import Prediction
from visionlora.tasks.segmentation.figures import overlay
from visionlora.tasks.segmentation.inference import TrainedSegmenter, colors_of, values_of


@dataclass(frozen=True)
class ImageMask(Prediction):
    """See ``tasks.protocols.Prediction``; ``mask`` is (H, W), the class of each pixel."""

    mask: np.ndarray
    trained: TrainedSegmenter

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        """``image``, and ``shares``: of the classes that there are, class -> its share of the pixels."""
        return [{"image": image_id, "shares": {name: n / self.mask.size for name, n in self.tally().items() if n}}]

    def tally(self) -> Mapping[str, float]:
        """Class -> pixels."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.trained.classes)).tolist()
        return dict(zip(self.trained.classes, counts, strict=True))

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """The image with the classes over it."""
        return overlay(image, self.mask, colors_of(self.trained))

    def write_mask(self, path: Path) -> None:
        """In the values of the masks that were trained on."""
        write_mask(path, self.mask, values_of(self.trained), colors_of(self.trained))
