"""Look at a data set before it is trained on: what is in it, and everything that is wrong with it."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.reading import Options, Progress
from visionlora.data.annotations.recognising import recognise
from visionlora.data.checks.cameras import describe_cameras, note_lacks, regroup
from visionlora.data.checks.label_survey import survey_frames, survey_labels, survey_table
from visionlora.data.checks.mask_mending import write_mended_masks
from visionlora.data.checks.mask_survey import MaskFiles, survey_masks
from visionlora.data.checks.mending import refuse_target, write_mended
from visionlora.data.checks.report import QUANTILES, BoxSizes, Burst, ClassCount, DataReport, Leak, PartReport
from visionlora.data.checks.survey import Part, Survey, survey_annotations
from visionlora.data.classification.csv_table import SUFFIXES
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.faults import Fault, Spot
from visionlora.data.frame_manifest import holds_frames
from visionlora.data.images import ImageFacts
from visionlora.data.near_duplicates import find_bursts, find_twins
from visionlora.data.segmentation.mask_folders import find_mask_places
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.errors import InputError

SMALL, MEDIUM = 32**2, 96**2
"""Square pixels: COCO's limits of small and medium objects."""

SHOWN_PAIRS = 5
"""Of each two parts, how many pairs of near-duplicates a report names."""


def check(
    paths: Path | Sequence[Path],
    root: Path | None = None,
    by: str | None = None,
    fix: Path | None = None,
    on_progress: Progress | None = None,
    masks: MaskFiles | None = None,
    on_survey: Callable[[Survey], object] | None = None,
    frames: Path | None = None,
) -> DataReport:
    """Read a data set of boxes or masks, or of classes, and report on it; what is given isn't changed.

    Args:
        paths: as for ``read_annotations``, a folder of class folders or of images and mask files, with or without train
            and val above them, or a table of labels. Several are parts of one data set, as in train.json and val.json.
        root: the folder of the images; by default the layout's own.
        by: a field of the images that makes the parts (day, camera, light); by default ``part``. Those of class
            folders, tables and mask files stand in lists of frames.
        fix: an empty or absent folder for a mended copy: COCO's annotations.json, or masks and classes.yaml; images,
            and changes.txt, which lists every change. What can't be mended with certainty is left out of it. It is
            written whole or not at all.
        on_progress: called as images are decoded.
        masks: of images with mask files, what isn't found by itself; ``root`` and ``by`` then don't apply.
        on_survey: called with what was read, before it is reported on.
        frames: a list of frames, for images that don't lie below theirs.

    Raises:
        InputError: a path can't be read at all, or ``fix`` can't be written for or to this.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    if fix is not None:
        refuse_target(fix)
        if len(paths) > 1:
            raise InputError(f"--fix mends one data set at a time, and {len(paths)} paths are given")
    options = Options(on_progress=on_progress, frames=frames)
    if masks is None:
        survey = _survey(paths, root, by, options)
    elif len(paths) > 1 or root is not None:
        raise InputError("of images with mask files, give one folder, without --root")
    else:
        survey = survey_masks(paths[0], masks, options)
    if by is not None and survey.reading is None:
        survey = regroup(survey, by, frames)
    cameras = describe_cameras(survey, frames)
    note_lacks(cameras, survey, paths[0])
    if on_survey is not None:
        on_survey(survey)
    bursts, leaks = _near_duplicates(survey)
    sizes = Counter(f"{facts.width} x {facts.height}" for facts in _readable(survey))
    return DataReport(
        paths=[str(path) for path in paths],
        layout=survey.layout,
        parts=[_describe(part) for part in survey.parts],
        image_sizes=dict(sizes.most_common()),
        faults=[*survey.faults, *(_remark(leak, survey.parts, paths[0]) for leak in leaks)],
        bursts=bursts,
        leaks=leaks,
        cameras=cameras,
        changes=None if fix is None else _mend(survey, paths[0], fix),
    )


def _survey(paths: list[Path], root: Path | None, by: str | None, options: Options) -> Survey:
    if len(paths) == 1 and paths[0].suffix.lower() in SUFFIXES and paths[0].is_file() and recognise(paths[0]) is None:
        return survey_table(paths[0], root, options)
    if len(paths) > 1 or not paths[0].is_dir() or recognise(paths[0]) is not None:
        return survey_annotations(paths, root, by, options)
    if root is not None:
        raise InputError(f"{paths[0]}: has no file of annotations, which --root is for")
    if holds_frames(paths[0]):
        return survey_frames(paths[0], options)
    if find_mask_places(paths[0]):
        return survey_masks(paths[0], MaskFiles(), options)
    return survey_labels(paths[0], options)


def _mend(survey: Survey, path: Path, fix: Path) -> list[str]:
    if survey.masks:
        return write_mended_masks(survey.masks, path, fix)
    if survey.reading is None:
        raise InputError(f"{path}: --fix is for boxes and masks; move or remove the files of class folders yourself")
    return write_mended(survey.reading, fix)


def _readable(survey: Survey) -> list[ImageFacts]:
    return [facts for facts in survey.facts.values() if facts.reason is None]


def _describe(part: Part) -> PartReport:
    data = part.data
    if isinstance(data, LabelledImages):
        counts = {name: ClassCount(n, n) for name, n in zip(data.classes, data.counts(), strict=True)}
        return PartReport(part.name, len(data), 0, len(data), 0, 0, counts, None)
    if isinstance(data, SegmentedImages):
        showing = [sum(image.pixels[label] > 0 for image in data.images) for label in range(len(data.classes))]
        counted = zip(data.classes, showing, data.counts(), strict=True)
        counts = {name: ClassCount(0, images, pixels) for name, images, pixels in counted}
        total = sum(data.counts())
        return PartReport(part.name, len(data), 0, 0, 0, len(data), counts, None, total, part.ignored_pixels)
    things = [thing for image in data.images for thing in image.objects]
    shown = Counter(label for image in data.images for label in {t.label for t in image.objects if not t.crowd})
    counts = {
        name: ClassCount(objects, shown[label])
        for label, (name, objects) in enumerate(zip(data.classes, data.counts(), strict=True))
    }
    return PartReport(
        name=part.name,
        images=len(data),
        negatives=sum(not image.objects for image in data.images),
        objects=sum(data.counts()),
        crowds=sum(thing.crowd for thing in things),
        masks=sum(thing.mask is not None and not thing.crowd for thing in things),
        classes=counts,
        boxes=_box_sizes(data),
    )


def _box_sizes(data: AnnotatedImages) -> BoxSizes | None:
    """None without objects."""
    rows = [
        (thing.box[2] - thing.box[0], thing.box[3] - thing.box[1], image.width * image.height)
        for image in data.images
        for thing in image.objects
        if not thing.crowd
    ]
    if not rows:
        return None
    width, height, image_area = np.array(rows, dtype=np.float64).T  # (objects,) each
    area = width * height
    small, medium = int((area < SMALL).sum()), int((area < MEDIUM).sum())
    shares = _quantiles(area / image_area)
    return BoxSizes(small, medium - small, len(area) - medium, _quantiles(width), _quantiles(height), shares)


def _quantiles(values: np.ndarray) -> dict[int, float]:
    return dict(zip(QUANTILES, np.percentile(values, QUANTILES).tolist(), strict=True))


def _near_duplicates(survey: Survey) -> tuple[list[Burst], list[Leak]]:
    prints = [[survey.facts[path].fingerprint for path in part.paths] for part in survey.parts]
    names = [[str(path) for path in part.paths] for part in survey.parts]
    bursts = [
        Burst(part.name, [files[index] for index in group])
        for part, files, own in zip(survey.parts, names, prints, strict=True)
        for group in find_bursts(own)
    ]
    leaks = []
    for second in range(len(prints)):
        for first in range(second):
            twins = sorted(find_twins(prints[first], prints[second]), key=lambda twin: twin.bits)
            if twins:
                nearest = [(names[first][twin.first], names[second][twin.second]) for twin in twins[:SHOWN_PAIRS]]
                leaks.append(Leak(survey.parts[first].name, survey.parts[second].name, len(twins), nearest))
    return sorted(bursts, key=lambda burst: -len(burst.images)), leaks


def _remark(leak: Leak, parts: list[Part], path: Path) -> Fault:
    found: list[Fault] = []
    total = next(len(part.paths) for part in parts if part.name == leak.second)
    first, second = leak.nearest[0]
    text = f"{leak.images} of {total} images of {leak.second} nearly equal one of {leak.first}, such as {second} and"
    Spot(path, "", found).note("leak", f"{text} {first}; split by time or by camera, never at random")
    return found[0]
