"""What each camera of a data set has, and what it lacks: classes, and light."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionlora.data.checks.report import CameraReport
from visionlora.data.checks.survey import Part, Survey
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.faults import Spot
from visionlora.data.frame_manifest import LIGHTS, fields_of
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.errors import InputError, did_you_mean, some


def fields_of_part(part: Part, lists: Path | None) -> list[Mapping[str, Any]]:
    """What is known of each image: by its annotations, and by lists of frames."""
    known = fields_of(part.paths, lists)
    if isinstance(part.data, LabelledImages):
        return [known.get(path, {}) for path in part.paths]
    return [{**known.get(image.path, {}), **image.fields} for image in part.data.images]


def regroup(survey: Survey, by: str, lists: Path | None) -> Survey:
    """With a part for each value of a field that lists of frames know; of class folders and mask files.

    Raises:
        InputError: no image has the field.
    """
    parts: dict[str, list[Part]] = {}
    names: set[str] = set()
    for part in survey.parts:
        fields = fields_of_part(part, lists)
        names.update(*fields)
        values = [str(each.get(by, f"no {by}")) for each in fields]
        for value in dict.fromkeys(values):
            own = part.data.subset(index for index, each in enumerate(values) if each == value)
            parts.setdefault(value, []).append(Part(value, own, part.ignored_pixels))
    if by not in names:
        raise InputError(
            f"--by {by}: no image has such a field{did_you_mean(by, names)}; there are {some(sorted(names)) or 'none'}"
        )
    return replace(survey, parts=[_joined(own) for own in parts.values()])


def _joined(parts: Sequence[Part]) -> Part:
    """Of one name; all have the classes of the first."""
    first = parts[0]
    ignored = sum(part.ignored_pixels for part in parts)
    if isinstance(first.data, LabelledImages):
        paths = [path for part in parts for path in part.paths]
        labels = [label for part in parts if isinstance(part.data, LabelledImages) for label in part.data.labels]
        return Part(first.name, replace(first.data, paths=paths, labels=labels))
    images = [image for part in parts if isinstance(part.data, SegmentedImages) for image in part.data.images]
    return Part(first.name, replace(first.data, images=images), ignored)  # type: ignore[arg-type]


def describe_cameras(survey: Survey, lists: Path | None) -> list[CameraReport]:
    """Each camera by name, where the images are known to be of some."""
    images: dict[str, Counter[str]] = {}
    days: dict[str, set[str]] = {}
    shown: dict[str, Counter[str]] = {}
    for part in survey.parts:
        for fields, classes in zip(fields_of_part(part, lists), _classes_shown(part), strict=True):
            camera = fields.get("camera")
            if camera is None:
                continue
            images.setdefault(str(camera), Counter())[str(fields.get("light", ""))] += 1
            days.setdefault(str(camera), set()).update([str(fields["day"])] if "day" in fields else [])
            shown.setdefault(str(camera), Counter()).update(classes)
    every = list(dict.fromkeys(name for part in survey.parts for name in part.data.classes))
    return [
        CameraReport(
            name=name,
            images=lights.total(),
            days=len(days[name]),
            lights={light: lights[light] for light in LIGHTS} if lights.total() > lights[""] else {},
            lacks=[each for each in every if not shown[name][each]],
        )
        for name, lights in sorted(images.items())
    ]


def note_lacks(cameras: Sequence[CameraReport], survey: Survey, where: Path) -> None:
    """A remark for each camera without a class that others show, and without a light that others have."""
    spot = Spot(where, "", survey.faults)
    for camera in cameras:
        others = [other for other in cameras if other is not camera]
        classes = [name for name in camera.lacks if any(name not in other.lacks for other in others)]
        if classes:
            spot.note("camera-lacks", f"camera {camera.name} shows no {some(classes)}, which others do")
        dark = camera.lights and not (camera.lights["night"] or camera.lights["infrared"])
        if dark:
            spot.note("camera-lacks", f"camera {camera.name} has no image at night, nor infrared")


def _classes_shown(part: Part) -> list[set[str]]:
    """Of each image, the names of its classes."""
    data = part.data
    if isinstance(data, LabelledImages):
        return [{data.classes[index] for index in label} for label in data.labels]
    if isinstance(data, SegmentedImages):
        return [
            {name for name, count in zip(data.classes, image.pixels, strict=True) if count} for image in data.images
        ]
    return [{data.classes[thing.label] for thing in image.objects if not thing.crowd} for image in data.images]
