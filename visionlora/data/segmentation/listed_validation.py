"""fastai's valid.txt: the images to validate on, a name in each line."""

from pathlib import Path

from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.errors import InputError, some

FILE = "valid.txt"


def split_by_list(root: Path | None, images: SegmentedImages) -> tuple[SegmentedImages, SegmentedImages] | None:
    """Images to train and to validate on as the file in ``root`` says; None where there is none.

    Names are those of image files, without a folder.

    Raises:
        InputError: the file can't be read, names none of the images or all of them.
    """
    path = root / FILE if root is not None else None
    if path is None or not path.is_file():
        return None
    try:
        named = {line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error}); save it as text, a file name in each line") from error
    chosen = [image.path.name in named for image in images.images]
    if not any(chosen) or all(chosen):
        which = "all" if chosen and all(chosen) else "none"
        raise InputError(
            f"{path}: names {which} of the {len(chosen)} images ({some(sorted(named), 2)}); mend or remove it"
        )
    return (
        images.subset(index for index, listed in enumerate(chosen) if not listed),
        images.subset(index for index, listed in enumerate(chosen) if listed),
    )
