"""Frames of a video as image files, with the annotations that count them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from visionlora.data.annotations.coco_file import read_whole
from visionlora.data.faults import shown
from visionlora.data.video import DamagedVideo, VideoFrames
from visionlora.errors import InputError
from visionlora.files import new_folder, write_json

IMAGES, ANNOTATIONS = "images", "annotations.json"
_CVATS = re.compile(r"(?:.*[/\\])?frame_(\d+)(?:\.\w+)?")
_QUALITY = 95
"""Of the JPEG files. Chroma isn't subsampled: a second loss of colour would be one too many."""


def extract_frames(
    video: VideoFrames, out: Path, annotations: Path | None = None, on_frame: Callable[[int], None] | None = None
) -> tuple[int, str]:
    """Write ``out/images/000000.jpg`` ..., named after the numbers of the frames.

    ``out`` is whole or absent.

    Args:
        video: what to read; it says which frames.
        out: an empty or absent folder.
        annotations: a COCO json whose images have a ``frame``, counted from 0 as decoded, or are named after it as
            CVAT does, ``frame_000010.png``. ``out/annotations.json`` then has those of the frames that were written,
            with their file names; all else stays as it is.
        on_frame: called with 1 after each frame.

    Returns:
        the number of frames, and what is damaged in the video, or nothing.

    Raises:
        InputError: ``out`` is there already, the annotations don't fit the video, or the video can't be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already and is no empty folder; give another for the frames")
    document = read_counted(annotations, video) if annotations is not None else None
    written: dict[int, str] = {}
    damage = ""
    with new_folder(out) as temporary:
        (temporary / IMAGES).mkdir()
        try:
            for frame in video:
                save_image(Image.fromarray(frame.image), temporary / IMAGES / _name(frame.number))
                written[frame.number] = f"{IMAGES}/{_name(frame.number)}"
                if on_frame is not None:
                    on_frame(1)
        except DamagedVideo as error:
            damage = str(error)
        if document is not None:
            write_json(temporary / ANNOTATIONS, of_frames(document, written, f"{annotations}", video.path))
    return len(written), damage


def save_image(image: Image.Image, path: Path) -> None:
    """As JPEG, whole or not at all; a process that is killed leaves ``.NAME.tmp``, which the next one replaces."""
    temporary = path.with_name(f".{path.name}.tmp")
    image.save(temporary, format="JPEG", quality=_QUALITY, subsampling=0)
    temporary.replace(path)


def _name(number: int) -> str:
    return f"{number:06d}.jpg"


def _frame_of(image: dict[str, Any]) -> Any:
    """What a document's image says of its frame: a number, unless something is wrong with it."""
    if "frame" in image or not isinstance(image.get("file_name"), str):
        return image.get("frame")
    named = _CVATS.fullmatch(image["file_name"])
    return int(named[1]) if named else image["file_name"]


def read_counted(path: Path, video: VideoFrames) -> dict[str, Any]:
    """The COCO json, whose images were checked to count frames of this video. InputError if they don't."""
    document: dict[str, Any] = read_whole(path)
    seen: set[int] = set()
    for place, image in enumerate(document["images"]):
        where = f"{path}: images[{place}]"
        if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
            raise InputError(f"{where} is {shown(image)}; it should have an id and a frame")
        number = _frame_of(image)
        if type(number) is not int or number < 0:
            raise InputError(
                f"{where} has {shown(number)} for its frame; give the number of the decoded frame, from 0, or a "
                f"file_name such as frame_000010.png"
            )
        if number in seen:
            raise InputError(f"{where}: frame {number} is there already; give each frame one image")
        seen.add(number)
        size = (image.get("width", video.width), image.get("height", video.height))
        if size != (video.width, video.height):
            raise InputError(
                f"{where} is {size[0]} x {size[1]} pixels, and {video.path} is {video.width} x {video.height}; "
                f"give the video that was annotated"
            )
    if video.frame_count is not None and seen and max(seen) >= video.frame_count:
        raise InputError(
            f"{path}: describes frame {max(seen)}, and {video.path} has {video.frame_count} frames, counted from 0; "
            f"give the video that was annotated"
        )
    return document


def of_frames(document: dict[str, Any], written: Mapping[int, str], where: str, video: Path) -> dict[str, Any]:
    """The document, read from ``where``, with the images of these frames alone, and their file names.

    Raises:
        InputError: it describes none of them.
    """
    images = [
        {**image, "file_name": written[_frame_of(image)]} for image in document["images"] if _frame_of(image) in written
    ]
    if not images:
        raise InputError(f"{where}: describes none of the {len(written)} frames taken from {video}")
    left_out = {image["id"] for image in document["images"]} - {image["id"] for image in images}
    things = [
        thing
        for thing in document["annotations"]
        if not isinstance(thing, dict) or thing.get("image_id") not in left_out
    ]
    return {**document, "images": images, "annotations": things}
