"""Which mask belongs to which image, by folder and name."""

from pathlib import Path

from visionlora.data.faults import Fault, Spot
from visionlora.data.folders import images_in, refuse_missing_folder, refuse_unread_formats
from visionlora.errors import InputError, some

_MASKS = ("masks", "annotations", "labels")
_ANNOT = "annot"


def find_mask_folders(root: Path, part: str | None = None) -> tuple[Path, Path]:
    """The folders of images and masks of a part, or of everything if `part` is None.

    Known are, with ``masks``, ``annotations`` or ``labels`` for masks: ``images/train`` and ``masks/train``,
    ``train/images`` and ``train/masks``, ``train`` and ``trainannot`` (CamVid); without parts ``images`` and ``masks``.

    Raises:
        InputError: no such folder, or it is laid out otherwise.
    """
    refuse_missing_folder(root)
    if found := _found(root, part):
        return found
    wanted = some(
        (f"{images.relative_to(root)} with {masks.relative_to(root)}" for images, masks in _known(root, part)), 7
    )
    there = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    raise InputError(f"{root}: no folders of images and masks ({wanted}); it holds {some(there, 8) or 'no folders'}")


def has_part(root: Path, part: str) -> bool:
    """Whether `find_mask_folders` would find a part of that name."""
    return _found(root, part) is not None


def _found(root: Path, part: str | None) -> tuple[Path, Path] | None:
    return next(((images, masks) for images, masks in _known(root, part) if images.is_dir() and masks.is_dir()), None)


def _known(root: Path, part: str | None) -> list[tuple[Path, Path]]:
    """Where images and masks may be, the likeliest first."""
    if part is None:
        return [(root / "images", root / masks) for masks in _MASKS]
    known = []
    for masks in _MASKS:
        known.append((root / "images" / part, root / masks / part))
        known.append((root / part / "images", root / part / masks))
    return [*known, (root / part, root / f"{part}{_ANNOT}")]


def pair(images: Path, masks: Path, suffix: str, faults: list[Fault]) -> list[tuple[Path, Path]]:
    """Each image with its mask, sorted; who has no partner, or two, is noted and left out.

    Partners have the same path in their folders, but for the ending of the file and for `suffix`, which the masks'
    names have before it: ``a/1.jpg`` and ``a/1_mask.png`` with ``_mask``. Both may then lie in one folder.

    Raises:
        InputError: no such folder, no images, formats that aren't read, or no image at all has a mask.
    """
    for folder in (images, masks):
        refuse_missing_folder(folder)
        refuse_unread_formats(folder)
    same = images.resolve() == masks.resolve()
    if same and not suffix:
        raise InputError(f"{images}: is the folder of images and of masks; give two, or the ending of the masks' names")
    mask_files = [path for path in images_in(masks) if path.stem.endswith(suffix)]
    inner = set(mask_files) if same or not masks.is_relative_to(images) else set(images_in(masks))
    outer = set(images_in(images)) if masks != images and images.is_relative_to(masks) else set()
    image_names = _by_name([path for path in images_in(images) if path not in inner], images, "", faults)
    mask_names = _by_name([path for path in mask_files if path not in outer], masks, suffix, faults)
    if not image_names:
        raise InputError(f"{images}: no images in it; give the folder of the images")
    if not image_names.keys() & mask_names.keys():
        first, other = next(iter(image_names)), some([path.name for path in mask_files], 1) or "nothing"
        raise InputError(
            f"{masks}: no image of {images} has a mask; '{first}{suffix}' is looked for, and {other} is there; "
            "name masks like their images, or give the ending that they have besides"
        )
    for name in sorted(image_names.keys() - mask_names.keys()):
        text = f"no mask '{name}{suffix}' in {masks}; add it, or remove the image"
        Spot(image_names[name], "", faults).note("no-mask", text, "image left out")
    for name in sorted(mask_names.keys() - image_names.keys()):
        text = f"no image '{name}' in {images}; add it, or remove the mask"
        Spot(mask_names[name], "", faults).note("no-image", text, "mask left out")
    return [(image_names[name], mask_names[name]) for name in sorted(image_names.keys() & mask_names.keys())]


def _by_name(paths: list[Path], folder: Path, suffix: str, faults: list[Fault]) -> dict[str, Path]:
    """Files by their path in the folder, without ending and suffix; of two for one name, the first."""
    names: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix().removesuffix(suffix)
        if name in names:
            text = f"{names[name].name} is there for '{name}' as well; remove one"
            Spot(path, "", faults).note("same-name", text, "left out")
        names.setdefault(name, path)
    return names
