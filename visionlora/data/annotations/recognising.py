"""What lies at a path: the one place that tells a format by the names of files and by what they begin with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionlora.data.annotations.coco_root import ANNOTATION_FOLDERS
from visionlora.data.annotations.json_file import OTHERS, kind_of_json
from visionlora.data.annotations.part_names import ORDER, canonical, is_part, part_of
from visionlora.data.annotations.text_lists import refuse_text
from visionlora.data.annotations.voc import find_voc_sets, find_xml_folder
from visionlora.data.annotations.xml_file import root_tag
from visionlora.data.annotations.yolo_folder import is_yolo_folder
from visionlora.data.annotations.yolo_yaml import is_yolo_yaml
from visionlora.data.frame_manifest import NAME as FRAMES
from visionlora.data.peeking import files_below, files_with, folders_in, names_in, shows_images
from visionlora.errors import InputError, some

NAMES = {
    "coco": "COCO",
    "voc": "Pascal VOC",
    "yolo": "YOLO",
    "labelme": "LabelMe",
    "cvat": "CVAT for images",
    "via": "VIA",
    "label-studio": "Label Studio",
}
"""Format -> what people call it."""

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_TABLES = ("_annotations.csv", "via_region_data.csv", "annotations.csv")
_UNREAD = {
    ".tfrecord": "TFRecord; export it as COCO",
    ".tfrecords": "TFRecord; export it as COCO",
    ".parquet": "Parquet; save the images as files, and the boxes as COCO",
    ".arrow": "Arrow; save the images as files, and the boxes as COCO",
    ".ndjson": "lines of JSON, as Labelbox and Ultralytics write them; export it as COCO or YOLO",
    ".jsonl": "lines of JSON; export it as COCO",
    ".manifest": "SageMaker's manifest; convert it to COCO",
    ".odgt": "ODGT, lines of JSON as CrowdHuman has; convert it to COCO",
}
_IMAGE_FOLDERS = {"images", "imgs", "image", "img", "data"}
_SNIFFED = 12
"""JSON files of a folder that are opened to tell what they are."""


@dataclass(frozen=True)
class Layout:
    """A format, and the file or folder to read; or the parts of a data set that lies in several."""

    format: str
    path: Path
    parts: dict[str, Path] = field(default_factory=dict)


def recognise(path: Path) -> Layout | None:
    """The format of a file or folder of labelled objects, None where nothing speaks for one.

    Raises:
        InputError: it is a format that isn't read, with what to do; or several files, of which one must be named.
    """
    if path.is_file():
        return _file(path)
    return _folder(path) if path.is_dir() else None


def _file(path: Path) -> Layout | None:
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        raise InputError(f"{path}: is an archive; unpack it, and give the folder")
    if suffix in _UNREAD:
        raise InputError(f"{path}: is {_UNREAD[suffix]}")
    if suffix in (".yaml", ".yml"):
        return Layout("yolo", path)
    if suffix == ".data":
        return Layout("yolo", path)
    if suffix == ".json":
        return _json(path, kind_of_json(path))
    if suffix == ".xml":
        return _xml(path)
    if path.name.lower() == "classes.txt" and is_yolo_folder(path.parent):
        return Layout("yolo", path.parent)
    if suffix == ".txt":
        refuse_text(path)
    return None


def _json(path: Path, kind: str | None) -> Layout:
    if kind in OTHERS:
        raise InputError(f"{path}: is {OTHERS[kind]}")
    return Layout(kind or "coco", path)  # COCO's reader says what is missing


def _xml(path: Path) -> Layout | None:
    tag = root_tag(path)
    if tag == "annotations":
        return Layout("cvat", path)
    if tag == "dataset":
        raise InputError(f"{path}: is dlib's (imglab's) XML; save it there as COCO or Pascal VOC")
    if tag == "annotation":
        raise InputError(f"{path}: is one image of Pascal VOC; give the folder of all: {path.parent}")
    return None


def _folder(folder: Path) -> Layout | None:
    for look in (_yolo_yaml, _darknet, _cvat, _documents, _in_parts, _coco_apart, _voc, _yolo_folder, _labelme_apart):
        if (found := look(folder)) is not None:
            return found
    _refuse_unread(folder)
    return _only_child(folder)


def _children(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folders_in(folder)}


def _yolo_yaml(folder: Path) -> Layout | None:
    files = {path.name.lower(): path for path in files_with(folder, ".yaml", ".yml")}
    for name in _YAML_NAMES:
        if name in files:
            return Layout("yolo", files[name])
    told = [path for path in files.values() if is_yolo_yaml(path)]
    return Layout("yolo", told[0]) if len(told) == 1 else None


def _darknet(folder: Path) -> Layout | None:
    places = [folder, *(child for name, child in _children(folder).items() if name == "data")]
    found = [path for place in places for path in files_with(place, ".data")]
    return Layout("yolo", found[0]) if len(found) == 1 else None


def _cvat(folder: Path) -> Layout | None:
    files = [path for path in files_with(folder, ".xml")[:_SNIFFED] if root_tag(path) == "annotations"]
    if len(files) > 1:
        raise InputError(f"{folder}: holds several files of CVAT ({_names(files)}); name the one that is meant")
    return Layout("cvat", files[0]) if files else None


def _documents(folder: Path) -> Layout | None:
    """JSON files directly in the folder."""
    documents = files_with(folder, ".json")
    kinds = {path: kind_of_json(path) for path in documents[:_SNIFFED]}
    if set(kinds.values()) - {None} == {"labelme"}:
        return Layout("labelme", folder)
    known = [path for path, kind in kinds.items() if kind is not None]
    if not known:
        others = {name.lower() for name in _children(folder)} - _IMAGE_FOLDERS
        if not documents or others or is_yolo_folder(folder):
            return None
        if len(documents) == 1:
            return Layout("coco", documents[0])
        raise InputError(f"{folder}: holds {_names(documents)}; name those that are meant")
    if len(known) == 1:
        return _json(known[0], kinds[known[0]])
    return _several(folder, known, kinds)


def _several(folder: Path, known: Sequence[Path], kinds: dict[Path, str | None]) -> Layout:
    """Parts of one data set, told by their names; of COCO's own files only those of the instances."""
    instances = [path for path in known if path.stem.lower().startswith("instances")]
    wanted = instances or list(known)
    parts = {part_of(path.stem): path for path in wanted}
    formats = {kinds[path] for path in wanted}
    (kind,) = formats if len(formats) == 1 else ("",)
    if kind in NAMES and None not in parts and len(parts) == len(wanted):
        if len(wanted) == 1:
            return Layout(str(kind), wanted[0])
        return Layout(str(kind), folder, {name: parts[name] for name in ORDER if name in parts})
    told = ", ".join(f"{path.name} ({NAMES.get(str(kinds[path]), 'another format')})" for path in known)
    raise InputError(f"{folder}: holds {told}; name those that are meant")


def _in_parts(folder: Path) -> Layout | None:
    """Folders called train, valid and so on, each a data set of the same format, as Roboflow lays them out."""
    children = {name: child for name, child in _children(folder).items() if is_part(name)}
    found = {}
    for name, child in children.items():
        layout = _cvat(child) or _documents(child) or (_voc(child) if find_xml_folder(child) else None)
        if layout is not None and not layout.parts:
            found[canonical(name)] = layout
    formats = {layout.format for layout in found.values()}
    if not found or len(formats) > 1:
        return None
    ordered = {name: found[name].path for name in ORDER if name in found}
    return Layout(formats.pop(), folder, ordered)


def _coco_apart(folder: Path) -> Layout | None:
    """COCO's JSON in a folder of its own, beside those of the images."""
    for name, child in _children(folder).items():
        if (
            name.lower() in ANNOTATION_FOLDERS
            and (layout := _documents(child)) is not None
            and layout.format != "labelme"
        ):
            return layout
    return None


def _labelme_apart(folder: Path) -> Layout | None:
    """LabelMe's JSON files in folders below."""
    for child in _children(folder).values():
        documents = files_with(child, ".json")[:3]
        if documents and all(kind_of_json(path) == "labelme" for path in documents):
            return Layout("labelme", folder)
    return None


def _voc(folder: Path) -> Layout | None:
    sets = find_voc_sets(folder)
    if len(sets) > 1:
        names = some((path.relative_to(folder).as_posix() for path in sets), 5)
        raise InputError(f"{folder}: holds several data sets of Pascal VOC ({names}); name the one that is meant")
    folder = sets[0] if sets else folder
    place = find_xml_folder(folder)
    if place is None:
        named = [child for name, child in _children(folder).items() if name.lower() == "annotations"]
        is_set = (folder / "ImageSets" / "Main").is_dir() or (folder / "JPEGImages").is_dir()
        return Layout("voc", folder) if named and is_set and not any(map(shows_images, named)) else None
    first = files_below(place, ".xml")[0]
    tag = root_tag(first)
    if tag == "annotations":
        return Layout("cvat", first)
    if tag == "dataset":
        return _xml(first)
    return Layout("voc", folder)


def _yolo_folder(folder: Path) -> Layout | None:
    return Layout("yolo", folder) if is_yolo_folder(folder) else None


def _refuse_unread(folder: Path) -> None:
    """Raises InputError for files that tell of a format that isn't read."""
    tables = [path for path in files_with(folder, ".csv") if path.name.lower() in _TABLES]
    for child in _children(folder).values():
        tables += [path for path in files_with(child, ".csv") if is_part(child.name) and path.name.lower() in _TABLES]
    if tables and _has_boxes(tables[0]):
        raise InputError(f"{tables[0]}: is a table of boxes, which isn't read; export it as COCO, Pascal VOC or YOLO")
    archives = files_with(folder, *_ARCHIVES)
    if archives and not _children(folder) and not shows_images(folder):
        raise InputError(f"{folder}: holds {_names(archives)}, packed; unpack it, and give the folder")
    for place in (folder, *_children(folder).values()):
        if found := [path for path in files_with(place, *_UNREAD) if path.name != FRAMES]:
            raise InputError(f"{folder}: holds {found[0].name}, {_UNREAD[found[0].suffix.lower()]}")
        if shards := [name for name in names_in(place) if ".tfrecord-" in name.lower()]:
            raise InputError(f"{folder}: holds {shards[0]}, {_UNREAD['.tfrecord']}")


def _has_boxes(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.readline().decode("utf-8-sig", errors="replace").lower()
    return any(word in head for word in ("xmin", "x_min", "bbox", "region_shape_attributes"))


def _only_child(folder: Path) -> Layout | None:
    """What an archive was unpacked into: a folder with nothing else in it."""
    children = folders_in(folder)
    others = set(names_in(folder)) - {child.name for child in children}
    if len(children) != 1 or any(not name.lower().endswith((".txt", ".md", ".pdf")) for name in others):
        return None
    return recognise(children[0])


def _names(paths: Sequence[Path]) -> str:
    return some((path.name for path in paths), 5)
