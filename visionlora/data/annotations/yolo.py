"""YOLO as ultralytics lays it out: data.yaml, images, and a text file of labels for each image."""

from dataclasses import dataclass, replace
from pathlib import Path

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject, Polygons
from visionlora.data.annotations.part_names import part_of
from visionlora.data.annotations.reading import PLAIN, Options, Reading, check_image, look_at, note_repeats
from visionlora.data.annotations.yolo_folder import load_darknet, load_yolo_folder
from visionlora.data.annotations.yolo_labels import read_label_file
from visionlora.data.annotations.yolo_yaml import YoloSet, load_yolo_yaml
from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.file_names import ImageFolder, is_file, leaves
from visionlora.data.folders import images_in, refuse_unread_formats, what_there_is
from visionlora.data.peeking import files_with, image_stems
from visionlora.errors import InputError, did_you_mean, some

_IMAGE_FOLDERS = {"images", "imgs", "jpegimages"}

_NO_LABELS = {"classes.txt"}
"""Tools put these among the label files."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    part: str
    spot: Spot


def read_yolo(path: Path, root: Path | None = None, part: str | None = None, options: Options = PLAIN) -> Reading:
    """Read the images of one part, or of all, with ``fields["part"]``: train, val or test.

    ``path`` is a data.yaml, darknet's obj.data, or a folder of images and labels with a file of the classes' names
    (see ``yolo_yaml``, ``yolo_folder``). A part is a folder of images, a .txt file that lists some, or a list of these,
    relative to the data folder. The labels of a/images/b/c.jpg are a/labels/b/c.txt, the last ``images`` counting; if
    there is none, they lie beside the image. An image without a label file is a negative, with a remark. A line
    is ``class cx cy w h``, or ``class x1 y1 x2 y2 x3 y3 ...`` for a polygon, as shares of the image as it is shown
    (EXIF applied).

    Raises:
        InputError: the data.yaml can't be used, or has no such part.
    """
    faults: list[Fault] = []
    data = _load(path, root, faults)
    if part is None:
        data = replace(data, parts=_without_repeats(data.parts, path, faults))
    elif part not in data.parts:
        raise InputError(f"{path}: no part '{part}'{did_you_mean(part, data.parts)}; the parts are {some(data.parts)}")
    entries: dict[Path, _Entry] = {}
    for name in data.parts if part is None else [part]:
        for given in data.parts[name]:
            for image, spot in _images_of(given, name, path, data.root, faults):
                _add(_Entry(image, name, spot), entries)
    labels = {entry.path: label_path(entry.path, data.root) for entry in entries.values()}
    _note_unlabelled(list(entries.values()), labels, path, faults)
    _note_orphans(labels, faults)
    facts = look_at([entry.path for entry in entries.values()], options)
    images = []
    for entry in entries.values():
        frame = check_image(facts[entry.path], None, entry.spot, options)
        if frame is None:
            continue
        things: list[LabelledObject] = []
        file = labels[entry.path]
        if is_file(file):
            things = read_label_file(file, data.classes, frame.width, frame.height, faults, data.keypoints)
        note_repeats(things, Spot(file, "", faults))
        fields = {"part": entry.part} if entry.part else {}
        images.append(AnnotatedImage(entry.path, frame.width, frame.height, tuple(things), fields))
    _note_rotated(images, path, faults)
    return Reading(AnnotatedImages(images, data.classes), faults, facts, data.root)


def label_path(image: Path, root: Path | None = None) -> Path:
    """Where the labels of an image are; folders above ``root`` have no say."""
    path = image.absolute()
    parts = list(path.parts)
    first = len(root.absolute().parts) if root is not None and path.is_relative_to(root.absolute()) else 0
    folders = [index for index in range(first, len(parts) - 1) if parts[index].lower() in _IMAGE_FOLDERS]
    beside = _text_file(path)
    if not folders:
        return beside
    apart = [_text_file(Path(*parts[: folders[-1]], name, *parts[folders[-1] + 1 :])) for name in ("labels", "Labels")]
    return next((file for file in (*apart, beside) if is_file(file)), apart[0])


def _text_file(path: Path) -> Path:
    """With the ending .txt, or .TXT where there is that alone."""
    lower, upper = path.with_suffix(".txt"), path.with_suffix(".TXT")
    return upper if is_file(upper) and not is_file(lower) else lower


def _load(path: Path, root: Path | None, faults: list[Fault]) -> YoloSet:
    if path.is_dir():
        return load_yolo_folder(path, root)
    if path.suffix.lower() in (".yaml", ".yml"):
        return load_yolo_yaml(path, root, faults)
    return load_darknet(path, root)


def _without_repeats(parts: dict[str, list[str]], path: Path, faults: list[Fault]) -> dict[str, list[str]]:
    """Without a part that names the very images of one before it, as where nobody had any to validate on."""
    kept: dict[str, list[str]] = {}
    for name, entries in parts.items():
        same = [other for other, before in kept.items() if before == entries]
        if same:
            text = f"names the images of {same[0]} ({some(entries, 2)}): they are {same[0]} alone"
            Spot(path, name, faults).note("same-part", f"{text}; {name} is then split off, or give it its own")
        else:
            kept[name] = entries
    return kept


def _images_of(given: str, part: str, path: Path, root: Path, faults: list[Fault]) -> list[tuple[Path, Spot]]:
    """The images of a folder, or of a .txt file with a list."""
    spot = Spot(path, part, faults)
    found = _find(given, root, spot)
    if found is None:
        return []
    if found.is_dir():
        try:
            refuse_unread_formats(found)
        except InputError as error:
            spot.note("unread-format", str(error))
        names = [(image.relative_to(root).as_posix(), Spot(image, "", faults)) for image in images_in(found)]
        if not names:
            spot.note("empty", f"{found} holds no image; add some, or remove the part")
    else:
        lines = found.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        names = [(line.strip(), Spot(found, f"line {n}", faults)) for n, line in enumerate(lines, 1) if line.strip()]
    folder = ImageFolder(root)
    located = [(folder.locate(_listed(name, root), spot), spot) for name, spot in names]
    return [(image, spot) for image, spot in located if image is not None]


def _find(given: str, root: Path, spot: Spot) -> Path | None:
    """A folder or a .txt file inside ``root``, or None, noted."""
    name = _relative(given, root)
    if (leaves(name) or not (root / name).exists()) and (there := _end_that_is_there(name, root)):
        # of another machine; or Roboflow's, for a folder that it doesn't make
        spot.note("other-path", f"{shown(given)} is taken for {shown(there)}, which is there", f"{there} taken")
        name = there
    elif spot.where == "test" and not (root / name).exists():
        spot.note("missing-part", f"{shown(given)}: nothing there, so that there is no part to test on", "left out")
        return None
    if leaves(name):
        text = f"{shown(given)} leaves the data folder; give a path relative to {root}, without '..'"
        spot.note("outside-folder", text, "left out")
        return None
    found = root / name
    if found.is_dir() or (is_file(found) and found.suffix == ".txt"):
        return found
    if found.exists():
        spot.note("malformed", f"{shown(given)} is neither a folder nor a .txt file with a list", "left out")
    else:
        spot.note("missing-file", f"{shown(given)}: nothing there{what_there_is(found)}", "left out")
    return None


def _end_that_is_there(name: str, root: Path) -> str | None:
    """The longest end of a path, of any system, that is a folder or a list in the data folder.

    It says train, val or test if the path does: ``../test/images`` is never taken for ``images``.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    told = any(part_of(part) for part in parts)
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        there = (root / end).is_dir() or (end.endswith(".txt") and is_file(root / end))
        if there and (not told or any(part_of(part) for part in parts[start:])):
            return end
    return None


def _relative(name: str, root: Path) -> str:
    """An absolute path inside ``root`` as a relative one; any other as it stands."""
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(root.absolute()):
        return path.relative_to(root.absolute()).as_posix()
    return name


def _listed(name: str, root: Path) -> str:
    """As ``_relative``; CVAT lists a/1.jpg as data/a/1.jpg, the folder that darknet was once run in."""
    name = _relative(name, root)
    plain = name.removeprefix("data/")
    return plain if plain != name and not is_file(root / name) and not leaves(plain) and is_file(root / plain) else name


def _add(entry: _Entry, entries: dict[Path, _Entry]) -> None:
    real = entry.path.resolve()
    first = entries.setdefault(real, entry)
    if first is entry:
        return
    name = entry.path.name
    if first.part == entry.part:
        entry.spot.note("duplicate-file", f"{name} is in {entry.part} twice; list it once", "listed once")
    else:
        text = f"{name} is in {first.part} and in {entry.part}; keep it in one"
        entry.spot.note("in-two-parts", text, f"kept in {first.part} alone")


def _note_unlabelled(entries: list[_Entry], labels: dict[Path, Path], path: Path, faults: list[Fault]) -> None:
    """A remark for each image without a label file, one error if none has one."""
    without = [entry for entry in entries if not is_file(labels[entry.path])]
    if entries and len(without) == len(entries):
        text = f"none of {len(entries)} images has a label file; the first would be {labels[entries[0].path]}"
        Spot(path, "", faults).note("missing-file", text)
        return
    for entry in without:
        entry.spot.note("no-label-file", f"no {labels[entry.path].name}: taken as an image without objects")


def _note_orphans(labels: dict[Path, Path], faults: list[Fault]) -> None:
    """An error for each label file whose image isn't there."""
    folders = {file.parent: image.parent for image, file in labels.items()}
    for folder, images in sorted(folders.items()):
        if folder == images.absolute() or not folder.is_dir():
            continue
        stems = image_stems(images)
        for file in files_with(folder, ".txt"):
            if file.stem not in stems and file.name not in _NO_LABELS:
                text = f"there is no image {file.stem} in {images}; add it or remove this"
                Spot(file, "", faults).note("no-image", text, "left out")


def _note_rotated(images: list[AnnotatedImage], path: Path, faults: list[Fault]) -> None:
    """A remark where every object has four corners, which is how rotated boxes (OBB) are written."""
    masks = [thing.mask for image in images for thing in image.objects]
    if masks and all(isinstance(mask, Polygons) and len(mask.rings[0]) == 8 for mask in masks):
        text = f"each of {len(masks)} objects has four corners, as rotated boxes (OBB) have; they are read as outlines"
        Spot(path, "", faults).note("rotated", f"{text}, and the upright box around each")
