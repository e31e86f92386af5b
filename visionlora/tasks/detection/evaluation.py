"""Scores of a detector on annotated images, in the pixels of their files."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.masks import refuse_missing_masks
from visionlora.data.detection.dataset import DetectionDataset
from visionlora.data.detection.targets import make_target
from visionlora.data.detection.tile_joining import Detections
from visionlora.data.detection.transforms import DetectionEvalTransform
from visionlora.data.geometry import whole_view
from visionlora.data.loading import batches, make_loader
from visionlora.data.windows import Window
from visionlora.models.detector import Detector
from visionlora.tasks.detection.curves import Curve
from visionlora.tasks.detection.inference import DetectorInput, joined, padded, to_image
from visionlora.tasks.detection.metrics import DetectionMetrics, Scores


class DetectionEvaluation:
    """Takes a detector's outputs for evaluation samples, joins tiles, and scores each image against its annotations.

    The truth is what the annotations say, not what is left of it in a sample: so scores by size mean the file's pixels.

    Args:
        detector: whose outputs will come.
        data: the whole images, even where the samples are tiles.
        shown: indices of images whose detections are to be kept, for pictures.

    Raises:
        InputError: the detector makes masks and an object has none.
    """

    def __init__(self, detector: Detector, data: AnnotatedImages, shown: Sequence[int] = ()) -> None:
        if detector.masks:
            refuse_missing_masks(data)
        self._detector, self._data = detector, data
        self._metrics = DetectionMetrics(data.classes, detector.masks)
        self._shown, self._seen = shown, dict[int, Detections]()
        self._image_id = -1
        self._parts: list[Detections] = []
        self._windows: list[Window] = []

    @property
    def names(self) -> list[str]:
        """Scores that there may be; higher is better for all, and of masks come first."""
        return sorted(self._metrics.names, key=lambda name: not name.startswith("segm_"))

    def update(self, outputs: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Any]]) -> None:
        """Take in a batch.

        Args:
            outputs: the model's.
            targets: ``image_id``, ``window`` and ``size`` (width, height) of each sample; tiles of an image in a row.
        """
        for output, target in zip(self._detector.to_classes(outputs), targets, strict=True):
            if target["image_id"] != self._image_id:
                self._finish()
                self._image_id = target["image_id"]
            self._parts.append(to_image(output, target["size"], target["window"]))
            self._windows.append(target["window"])

    def state(self) -> Any:
        """What was taken in; of each image all tiles, or none."""
        self._finish()
        return self._metrics.state()

    def add(self, state: Any) -> None:
        """Take in what others took in, of the images after one's own."""
        self._finish()
        self._metrics.add(state)

    def scores(self) -> Scores:
        """As ``DetectionMetrics.scores``; one that nothing in the images can be measured by is missing."""
        self._finish()
        return self._metrics.scores()

    def per_class(self) -> dict[str, Scores]:
        """As ``DetectionMetrics.per_class``."""
        self._finish()
        return self._metrics.per_class()

    def curves(self, masks: bool = False) -> dict[str, Curve]:
        """As ``DetectionMetrics.curves``."""
        self._finish()
        return self._metrics.curves(masks)

    def thresholds(self) -> dict[str, float]:
        """Class name -> the score threshold with the best F1 of boxes, for classes of which something is found."""
        self._finish()
        return {name: best.score for name, best in self._metrics.thresholds().items()}

    def seen(self) -> dict[int, Detections]:
        """Index -> detections, of the ``shown`` images among those that came here."""
        self._finish()
        return self._seen

    def details(self) -> dict[str, Any]:
        """What a report holds besides: the suggested thresholds, with what they reach."""
        self._finish()
        return {"thresholds": {name: asdict(best) for name, best in self._metrics.thresholds().items()}}

    def _finish(self) -> None:
        """Score the image whose parts are all there."""
        if not self._parts:
            return
        image = self._data.images[self._image_id]
        found = joined(self._parts, self._windows, image.width, image.height)
        if self._image_id in self._shown:
            self._seen[self._image_id] = found
        view = whole_view(image.width, image.height, max(image.width, image.height))
        self._metrics.update([found], [make_target(image.objects, view, self._metrics.masks, train=False)])
        self._image_id, self._parts, self._windows = -1, [], []


def evaluation_set(data: AnnotatedImages, shown: DetectorInput) -> DetectionDataset:
    """The samples that a detector is evaluated on; ``DetectionEvaluation`` looks up the truth itself."""
    return DetectionDataset(shown.samples(data), DetectionEvalTransform(shown.size), seed=0)


def evaluation_loader(dataset: DetectionDataset, batch_size: int, workers: int) -> DataLoader[Any]:
    """All samples of a dataset, those together that a detector pads to one size (see ``as_alone``).

    The tiles of an image are of one size, and so stay in a row.
    """
    size = dataset.transform.size
    views = [whole_view(image.width, image.height, size) for image in dataset.data.images]
    order = sorted(range(len(dataset)), key=lambda index: padded(views[index].width, views[index].height))
    keys = batches(order, 0, batch_size, drop_last=False)
    return make_loader(dataset, keys, workers, _collate_places)


def _collate_places(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch whose ``target`` says what of which image each sample shows, as ``DetectionEvaluation.update`` asks."""
    places = [
        {
            "image_id": sample["target"]["image_id"],
            "window": tuple(sample["window"].tolist()),
            "size": (sample["image"].shape[2], sample["image"].shape[1]),
        }
        for sample in samples
    ]
    return {"image": [sample["image"] for sample in samples], "target": places}
