"""Frames of recordings for training and for validation, so that no neighbour of the one is in the other."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from visionlora.errors import InputError, some

Fields = Mapping[str, Any]
"""Of an image: ``camera``, ``day``, ``time``, ``recording`` and ``seconds``, as far as they are known."""


def split_frames(
    fields: Sequence[Fields], by: str, fraction: float, block: float = 600.0, gap: float = 10.0
) -> tuple[list[int], list[int]]:
    """Indices of the frames to train and to validate on, each in the order given.

    Args:
        fields: what is known of each frame.
        by: ``camera``: the last cameras by name validate. ``day``: the last days, of all cameras. ``time``: every so
            many-th block of each camera's time, or of a recording's where no time is known.
        fraction: of the frames that validate, about; cameras and days are taken until it is reached, one at least,
            and one at least is left to train on.
        block: seconds, for ``time``.
        gap: frames of a camera within so many seconds of one that validates are in neither part.

    Raises:
        InputError: a frame lacks what it is split by, or there is only one camera, day or block.
    """
    if by == "time":
        held_out = _blocks(fields, fraction, block)
    else:
        held_out = _groups([_field(each, by) for each in fields], by, fraction)
    val = [index for index in range(len(fields)) if index in held_out]
    near = _near(fields, held_out, gap)
    train = [index for index in range(len(fields)) if index not in held_out and index not in near]
    if not train:
        raise InputError(
            f"no frame is left to train on: all are within {gap:g} s of one that validates; give a smaller "
            "data.gap_seconds or larger blocks"
        )
    return train, val


def refuse_unknown(fields: Mapping[Any, Fields], images: Sequence[Any], by: str) -> None:
    """Raises InputError if nothing is known of one of the images."""
    if unknown := [image for image in images if not fields.get(image)]:
        raise InputError(
            f"data.split_by={by}: {len(unknown)} of {len(images)} images are in no list of frames, such as "
            f"{some(unknown, 2)}; data.frames=PATH is the list for images that were moved, found by their names"
        )


def _field(fields: Fields, name: str) -> str:
    if fields.get(name) is None:
        hint = "; data.split_by=time does without" if name == "day" else ""
        raise InputError(f"data.split_by={name}: not every image has a {name}{hint}")
    return str(fields[name])


def _groups(names: list[str], by: str, fraction: float) -> set[int]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        members[name].append(index)
    if len(members) < 2:
        raise InputError(f"data.split_by={by}: all frames are of one {by}, {some(members)}; split by something else")
    held_out: set[int] = set()
    for name in sorted(members)[:0:-1]:  # from the last to the second
        held_out.update(members[name])
        if len(held_out) >= fraction * len(names):
            break
    return held_out


def _blocks(fields: Sequence[Fields], fraction: float, block: float) -> set[int]:
    """The last of each so many blocks of a timeline; of one with fewer blocks than that, but two at least, the last."""
    cycle = max(2, round(1 / fraction))
    held_out: set[int] = set()
    for members in _timelines(fields).values():
        blocks: dict[int, list[int]] = defaultdict(list)
        for index, seconds in members:
            blocks[int(seconds // block)].append(index)
        order = sorted(blocks)
        chosen = order[cycle - 1 :: cycle] or order[1:][-1:]
        held_out.update(index for number in chosen for index in blocks[number])
    if not held_out:
        raise InputError(
            f"data.split_by=time: no camera's time has two blocks of {block:g} s; give a smaller data.block_seconds"
        )
    return held_out


def _near(fields: Sequence[Fields], held_out: set[int], gap: float) -> set[int]:
    """Those that aren't held out, within ``gap`` seconds of one that is, on the same timeline."""
    near: set[int] = set()
    for members in _timelines(fields, strict=False).values():
        order = sorted(members, key=lambda member: member[1])
        for walk in (order, order[::-1]):
            last: float | None = None
            for index, seconds in walk:
                if index in held_out:
                    last = seconds
                elif last is not None and abs(seconds - last) <= gap:
                    near.add(index)
    return near


def _timelines(fields: Sequence[Fields], strict: bool = True) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Index and seconds of each frame, by camera where its time is known, and else by recording.

    Where ``strict``, one of which neither is known is refused; else it is left out.
    """
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for index, each in enumerate(fields):
        camera, time = str(each.get("camera", "")), _seconds(each.get("time"))
        if time is not None:
            found[camera, ""].append((index, time))
        elif isinstance(each.get("seconds"), int | float):
            found[camera, str(each.get("recording", ""))].append((index, float(each["seconds"])))
        elif strict:
            raise InputError(
                "data.split_by=time: not every image has a time, as 2024-05-31T12:00:00, or the seconds within its "
                "recording"
            )
    return found


def _seconds(time: object) -> float | None:
    """Of the clock; a time without a zone counts as UTC, which is the same for all of a camera's. None for no time."""
    try:
        parsed = datetime.fromisoformat(str(time))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
