"""Pascal VOC: a folder with one XML file per image.

Coordinates are pixels counted from 1, and the last one belongs to the box. (xmin, ymin, xmax, ymax) therefore
becomes (xmin - 1, ymin - 1, xmax, ymax), as in the devkit and in detectron2; torchvision hands them out as they
are. Where a tool has counted from 0, that is off by one pixel at the left and at the top.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from visionlora.data.annotations import polygons
from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, Box, LabelledObject
from visionlora.data.annotations.boxes import DROPPED, check_box
from visionlora.data.annotations.polygons import check_polygons
from visionlora.data.annotations.reading import PLAIN, Options, Reading, check_image, look_at, note_repeats
from visionlora.data.annotations.voc_xml import VocFile, VocObject, read_voc_xml
from visionlora.data.faults import Fault, Spot, shown
from visionlora.data.file_names import ImageFolder, is_file, leaves
from visionlora.data.folders import images_in, refuse_missing_folder
from visionlora.data.images import IMAGE_SUFFIXES, is_image
from visionlora.data.peeking import files_below, files_with, folders_in, shows_below, shows_images
from visionlora.data.usual_names import MASK_FOLDERS, OTHER_MASK_FOLDERS
from visionlora.errors import InputError, did_you_mean, some

_IMAGE_FOLDERS = ("jpegimages", "images", "imgs", "image", "img", "data")
_XML_FOLDERS = ("annotations", "annotation", "labels", "xmls", "xml")
_MASK_FOLDERS = (*MASK_FOLDERS, *OTHER_MASK_FOLDERS)
"""In upper or lower case. Of the last, files bear the images' names and are none."""


@dataclass(frozen=True)
class _Entry:
    """One image, and the file about it; objects of a second file are added to those of the first."""

    path: Path
    voc: VocFile
    part: str
    spot: Spot


def read_voc(
    folder: Path, part: str | None = None, options: Options = PLAIN, images_root: Path | None = None
) -> Reading:
    """Read Annotations/*.xml with JPEGImages or images, or XML files that lie beside their images in ``folder``.

    Folders may have other names: the XML files are in the folder itself, in one called annotations, labels or xml, or
    in the only one that holds some; the images in ``images_root``, or one called JPEGImages, images, imgs or data.

    ``part`` takes the images that ImageSets/Main/``part``.txt lists. None takes every XML file, and where there are
    such lists, ``fields["part"]`` of an image says in which it is. The image is the one with the XML file's
    name; only where there is none, the one that its ``filename`` says. Classes are the names that occur, sorted.
    An object marked ``difficult`` becomes a crowd: no training target, and no false alarm. An outline is read where
    there is no <bndbox>; masks in files are not.

    Raises:
        InputError: no such folder, no XML files in it, or no such part.
    """
    refuse_missing_folder(folder)
    xml_folder = find_xml_folder(folder) or folder
    root = images_root or _image_folder(folder, xml_folder)
    refuse_missing_folder(root)
    faults: list[Fault] = []
    files = {_stem(path, xml_folder): path for path in files_below(xml_folder, ".xml")}
    if not files:
        raise InputError(f"{xml_folder}: holds no .xml files; Pascal VOC has one for each image")
    members = {name: _members(folder, name, faults) for name in ([part] if part else voc_parts(folder))}
    members = {name: {_known_stem(stem, files) for stem in stems} for name, stems in members.items()}
    _note_missing(members, files, folder, faults)
    parts = {stem: [name for name, stems in members.items() if stem in stems] for stem in files}
    if part is not None:
        files = {stem: path for stem, path in files.items() if parts[stem]}
    entries = _entries(files, parts, root, faults)
    classes = sorted({thing.name for entry in entries for thing in entry.voc.objects})
    labels = {name: index for index, name in enumerate(classes)}
    facts = look_at([entry.path for entry in entries], options)
    images = []
    for entry in entries:
        frame = check_image(facts[entry.path], entry.voc.size, entry.spot, options)
        if frame is None:
            continue
        if entry.voc.size is None:
            entry.spot.note("no-size", "has no <size>; the file's is taken", "the file's size taken")
        found = [_object(thing, labels, frame.width, frame.height) for thing in entry.voc.objects]
        things = [thing for thing in found if thing is not None]
        note_repeats(things, entry.spot)
        size = facts[entry.path].width, facts[entry.path].height
        fields = {"part": entry.part} if members else {}
        images.append(AnnotatedImage(entry.path, *size, frame.turned(things), fields))
    return Reading(AnnotatedImages(images, classes), faults, facts, root)


def find_xml_folder(folder: Path) -> Path | None:
    """Where the XML files are: the folder itself, or one in it; None if there are none, or in several places."""
    children = folders_in(folder)
    named = [
        child
        for name in _XML_FOLDERS
        for child in children
        if child.name.lower() == name and shows_below(child, ".xml")
    ]
    if named:
        return named[0]
    if files_with(folder, ".xml"):
        return folder
    holding = [child for child in children if shows_below(child, ".xml")]
    return holding[0] if len(holding) == 1 else None


def find_voc_sets(folder: Path) -> list[Path]:
    """The data sets meant by a folder: itself, the one whose XML folder it is, or those in it, at most two levels down.

    A data set has a folder of XML files by its usual name, and images. There may be several, as VOC2007 beside
    VOC2012 in VOCdevkit, or none.
    """
    if _is_set(folder):
        return [folder]
    place = folder if folder.name else folder.resolve()
    while place.name.lower() in _XML_FOLDERS and not shows_images(place):
        place = place.parent
        if _is_set(place):
            return [place]
    inside = folders_in(folder)
    sets = [child for child in inside if _is_set(child)]
    return sets or [below for child in inside for below in folders_in(child) if _is_set(below)]


def _is_set(folder: Path) -> bool:
    children = folders_in(folder)
    xmls = [child for child in children if child.name.lower() in _XML_FOLDERS and shows_below(child, ".xml")]
    if not xmls:
        return False
    images = _image_folder(folder, xmls[0])
    return shows_images(folder) if images == folder else shows_below(images, *IMAGE_SUFFIXES)


def _image_folder(folder: Path, xml_folder: Path) -> Path:
    """One of the usual names, else the only other folder with images, else the folder itself; never one of masks."""
    if xml_folder == folder and shows_images(folder):
        return folder
    children = [
        child for child in folders_in(folder) if child != xml_folder and child.name.lower() not in _MASK_FOLDERS
    ]
    named = [child for name in _IMAGE_FOLDERS for child in children if child.name.lower() == name]
    if named:
        return named[0]
    holding = [child for child in children if shows_images(child)]
    return holding[0] if len(holding) == 1 and not shows_images(folder) else folder


def _known_stem(name: str, files: dict[str, Path]) -> str:
    """A name as lists have it, which may have the image's ending."""
    path = Path(name)
    return path.with_suffix("").as_posix() if name not in files and is_image(path) else name


def voc_parts(folder: Path) -> list[str]:
    """The lists in ImageSets/Main, but for those of single classes, and ``trainval`` where its halves are there."""
    lists = (folder / "ImageSets" / "Main").glob("*.txt")
    names = {path.stem for path in lists if all(len(line.split()) == 1 for line in _lines(path))}
    if {"train", "val"} <= names:
        names.discard("trainval")
    order = {name: index for index, name in enumerate(("train", "val", "test"))}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _stem(path: Path, folder: Path) -> str:
    """A file's path inside the folder without its ending: the name of an image in the lists."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _members(folder: Path, part: str, faults: list[Fault]) -> set[str]:
    """The names that a list holds."""
    path = folder / "ImageSets" / "Main" / f"{part}.txt"
    if leaves(part) or not is_file(path):
        there = voc_parts(folder)
        known = f"the parts are {some(there) or 'none'}"
        raise InputError(f"{folder}: no part '{part}' in ImageSets/Main{did_you_mean(part, there)}; {known}")
    counts = Counter(line.split()[0] for line in _lines(path))
    for stem, count in counts.items():
        if count > 1:
            Spot(path, "", faults).note("duplicate-file", f"lists {shown(stem)} {count} times", "listed once")
    return set(counts)


def _note_missing(members: dict[str, set[str]], files: dict[str, Path], folder: Path, faults: list[Fault]) -> None:
    for part, stems in members.items():
        spot = Spot(folder / "ImageSets" / "Main" / f"{part}.txt", "", faults)
        for stem in sorted(stems - files.keys()):
            text = f"lists {shown(stem)}, which has no .xml file; an image without objects has one too"
            spot.note("missing-file", text, "image left out")


def _entries(files: dict[str, Path], parts: dict[str, list[str]], root: Path, faults: list[Fault]) -> list[_Entry]:
    folder = ImageFolder(root)
    by_stem = {_stem(path, root): path for path in images_in(root)}
    entries: dict[Path, _Entry] = {}
    for stem, file in files.items():
        spot = Spot(file, "", faults)
        voc = read_voc_xml(file, faults)
        if voc is None:
            continue
        path = _find_image(stem, voc, by_stem, folder, spot)
        if path is None:
            continue
        if len(parts[stem]) > 1:
            spot.note("in-two-parts", f"is in {some(parts[stem])}; keep it in one", f"kept in {parts[stem][0]} alone")
        if (real := path.resolve()) in entries:
            first = entries[real]
            text = f"is about {path.name}, as {first.spot.file.name} is; keep one file, with all objects"
            spot.note("duplicate-file", text, "the two merged")
            first.voc.objects.extend(voc.objects)
        else:
            entries[real] = _Entry(path, voc, parts[stem][0] if parts[stem] else "no part", spot)
    return list(entries.values())


def _find_image(stem: str, voc: VocFile, by_stem: dict[str, Path], folder: ImageFolder, spot: Spot) -> Path | None:
    root = folder.root
    if stem not in by_stem:
        return folder.locate(voc.filename or f"{stem}.jpg", spot)
    found = by_stem[stem]
    if voc.filename and voc.filename != found.name and not leaves(voc.filename) and is_file(root / voc.filename):
        text = f"<filename> is {shown(voc.filename)}, but {found.name} has the name of the XML file and is taken"
        spot.note("other-path", text, f"{found.name} taken")
    return folder.locate(found.relative_to(root).as_posix(), spot)


def _object(thing: VocObject, labels: dict[str, int], width: int, height: int) -> LabelledObject | None:
    """None, noted, for a box that is none."""
    mask = None
    if thing.corners is None:
        mask = check_polygons([list(thing.ring or ())], width, height, thing.spot)
        box = None if mask is None else check_box(polygons.extent(mask), width, height, thing.spot)
    else:
        box = _box(thing.corners, width, height, thing.spot)
    if box is None:
        return None
    if thing.difficult:
        thing.spot.note("difficult", "neither trained on nor counted as a false alarm")
    return LabelledObject(labels[thing.name], box, mask, thing.difficult, thing.spot.where)


def _box(corners: tuple[float, ...], width: int, height: int, spot: Spot) -> Box | None:
    xmin, ymin, xmax, ymax = corners
    text = f"the box xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g}"
    if xmax == xmin or ymax == ymin:  # one pixel by the letter, and in practice a click by mistake
        spot.note("zero-area", f"{text} has no area; draw it again or remove it", DROPPED)
        return None
    if xmax < xmin or ymax < ymin:
        spot.note("negative-size", f"{text} ends before it begins; exchange its corners", "corners exchanged")
        xmin, xmax, ymin, ymax = min(xmin, xmax), max(xmin, xmax), min(ymin, ymax), max(ymin, ymax)
    return check_box((xmin - 1, ymin - 1, xmax, ymax), width, height, spot, f"{text} (counted from 1)")
