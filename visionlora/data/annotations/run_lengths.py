"""COCO's run-length code: checked before anything is allocated for it.

A mask is read column by column as runs of background, object, background ... Compressed, each run but the
first three is written as the difference to the one before the last, in 5-bit groups, lowest first (maskApi.c
of pycocotools).
"""

from faster_coco_eval.core import mask as coco_mask

from visionlora.data.annotations.annotated import Box, RunLengths
from visionlora.data.annotations.boxes import DROPPED
from visionlora.data.faults import Spot, shown


def check_run_lengths(value: object, width: int, height: int, spot: Spot) -> RunLengths | None:
    """COCO's {"size": [height, width], "counts": text or list} -> compressed, or None for a fault.

    The size must be that of the image, so that no file can ask for more memory than its image does.
    """
    if not isinstance(value, dict) or "size" not in value or "counts" not in value:
        spot.note("malformed", f"the segmentation is {shown(value)}; run lengths have 'size' and 'counts'", DROPPED)
        return None
    if value["size"] != [height, width]:
        given = f"{shown(value['size'])} (height, width)"
        spot.note("rle-size", f"the mask is for {given}, the image has [{height}, {width}]; draw it again", DROPPED)
        return None
    counts = _counts(value["counts"])
    if counts is None:
        text = f"the run lengths are damaged ({shown(value['counts'])}); write the mask again"
        spot.note("rle-counts", text, DROPPED)
        return None
    if sum(counts) != height * width:
        text = f"the run lengths add up to {sum(counts)} pixels, the image has {height * width}; write the mask again"
        spot.note("rle-counts", text, DROPPED)
        return None
    if not sum(counts[1::2]):
        spot.note("zero-area", "the mask has no pixel; draw it again or remove it", DROPPED)
        return None
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": _merge(counts)}, height, width)
    return RunLengths(height, width, packed["counts"])


def extent(mask: RunLengths) -> Box:
    """The box around all of it."""
    left, top, width, height = coco_mask.toBbox(as_coco(mask)).tolist()
    return left, top, left + width, top + height


def area(mask: RunLengths) -> int:
    """Pixels of the object."""
    return int(coco_mask.area(as_coco(mask)))


def as_coco(mask: RunLengths) -> dict[str, object]:
    """As the COCO libraries take it."""
    return {"size": [mask.height, mask.width], "counts": mask.counts}


def _counts(value: object) -> list[int] | None:
    """The runs, or None if they are no list of integers >= 0, nor their compressed form."""
    if isinstance(value, str):
        value = _decompress(value)
    if not isinstance(value, list) or any(type(count) is not int or count < 0 for count in value):
        return None
    return value


def _decompress(text: str) -> list[int] | None:
    """Runs from their compressed form, or None for a character or an end that can't be."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 31) << shift
        shift += 5
        if code & 32:  # more groups follow
            if shift > 60:
                return None
            continue
        if code & 16:  # the sign
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts if shift == 0 else None


def _merge(counts: list[int]) -> list[int]:
    """Without runs of no pixels inside, which the C code measures wrongly."""
    merged = counts[:1]
    for index in range(1, len(counts)):
        if counts[index] == 0:
            continue
        # runs alternate: where one was left out, the next continues the one before it
        if len(merged) % 2 == index % 2:
            merged.append(counts[index])
        else:
            merged[-1] += counts[index]
    return merged
