"""``visionlora check-data``."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from visionlora.cli.show import check_folder, check_out, print_table, progress
from visionlora.data.annotations.recognising import NAMES
from visionlora.data.checks.check_data import check
from visionlora.data.checks.mask_survey import MaskFiles
from visionlora.data.checks.report import DataReport, PartReport
from visionlora.data.checks.survey import Survey
from visionlora.data.faults import Fault, count_by_title
from visionlora.data.frame_manifest import LIGHTS
from visionlora.errors import on_one_line, some
from visionlora.files import write_json

DRAWINGS = Path("drawn")
"""Where drawings go unless a folder is given."""

_LAYOUTS = {**NAMES, "folders": "class folders", "table": "table of labels", "frames": "frames of recordings"}
_CLASSIFIED = ("folders", "table", "frames")
_SHOWN = 3
"""Faults of each kind, unless all are asked for."""
_SHOWN_PARTS = 4
"""More would not fit into a table of 80 columns."""
_QUANTILES = (5, 50, 95)


def check_data(
    paths: list[Path],
    root: Path | None,
    by: str | None,
    out: Path | None,
    fix: Path | None,
    every: bool,
    masks: MaskFiles | None = None,
    draw: int = 0,
    drawings: Path = DRAWINGS,
    frames: Path | None = None,
) -> int:
    """Print what is in a data set and what is wrong with it; returns the exit code, 1 if training would refuse it.

    With ``draw``, as many images are written into the folder ``drawings`` with what is known of them.
    """
    check_out(out)
    check_folder(drawings if draw else None, "--drawings")
    drawn = 0

    def draw_survey(survey: Survey) -> None:
        nonlocal drawn
        if draw:
            from visionlora.cli.draw_data import draw_data

            drawn = draw_data(survey, draw, drawings)

    report = _check(paths, root, by, fix, masks, draw_survey, frames)
    console = Console()
    if report.layout == "masks":
        _print_masks(report, console)
    else:
        _print_contents(report, console)
        _print_boxes(report)
    _print_cameras(report)
    _print_near_duplicates(report, console)
    base = paths[0].parent if paths[0].is_file() else paths[0]
    _print_faults("remarks: training takes these as they are", report.remarks, base, every, console)
    _print_faults("errors: training refuses these", report.errors, base, every, console)
    if out is not None:
        write_json(out, report.to_dict())
    if drawn:
        print(f"\n{drawings}: {_count(drawn, 'image')} with the annotations drawn")
    if report.changes is not None:
        print(f"\n{fix}: the mended copy, with {_count(len(report.changes), 'change')}, listed in its changes.txt")
    elif not report.errors:
        setting = " with data.crowds=objects" if _only_crowds(report) else ""
        print(f"\nno errors: training takes this{setting}")
    elif report.layout not in _CLASSIFIED and (report.layout != "masks" or _can_be_mended(report)):
        print("\nto write a mended copy: --fix FOLDER")
    return 1 if report.errors else 0


def _can_be_mended(report: DataReport) -> bool:
    return all(fault.mended for fault in report.errors) and any(part.images for part in report.parts)


def _only_crowds(report: DataReport) -> bool:
    crowds = any(fault.kind == "crowd-masks" for fault in report.remarks)
    return crowds and not any(part.objects for part in report.parts)


def _check(
    paths: list[Path],
    root: Path | None,
    by: str | None,
    fix: Path | None,
    masks: MaskFiles | None,
    on_survey: Callable[[Survey], object],
    frames: Path | None,
) -> DataReport:
    """Under a bar; each path begins a new one."""
    with ExitStack() as bars:
        advance: Callable[[int], None] = print

        def tell(done: int, total: int) -> None:
            nonlocal advance
            if done == 1:
                bars.close()
                advance = bars.enter_context(progress("looking at images", total))
            advance(1)

        return check(paths, root, by, fix, tell, masks, on_survey, frames)


def _print_contents(report: DataReport, console: Console) -> None:
    parts = report.parts
    images, objects = sum(part.images for part in parts), sum(part.objects for part in parts)
    classified = report.layout in _CLASSIFIED
    what = "" if classified else f", {_count(objects, 'object')}"
    if not classified and len(parts) == 1:
        further = ", ".join(f"{name}: {number}" for name, number in _further(parts[0]).items() if number)
        what += f" ({further})" if further else ""
    console.print(Text(f"{some(report.paths)}: {_LAYOUTS[report.layout]}, {_count(images, 'image')}{what}"))
    _print_sizes(report, console)
    if not classified and len(parts) > 1:
        rows = [
            [part.name, str(part.images), str(part.objects), *(str(number) for number in _further(part).values())]
            for part in parts
        ]
        print_table(("part", "images", "objects", *_further(parts[0])), rows)
    shown = parts if 1 < len(parts) <= _SHOWN_PARTS else []
    rows = []
    for name in dict.fromkeys(name for part in parts for name in part.classes):
        counts = [part.classes[name].objects if name in part.classes else 0 for part in parts]
        share = f"{sum(counts) / objects:.1%}" if objects else "-"
        rows.append([name, str(sum(counts)), share, *(str(count) for count in (counts if shown else []))])
    if not rows:
        return
    print_table(("class", "images" if classified else "objects", "share", *(part.name for part in shown)), rows)


def _print_masks(report: DataReport, console: Console) -> None:
    parts = report.parts
    images = sum(part.images for part in parts)
    pixels, ignored = sum(part.pixels for part in parts), sum(part.ignored_pixels for part in parts)
    share = f", {ignored / (pixels + ignored):.1%} of the pixels ignored" if ignored else ""
    each = f" ({', '.join(f'{part.name} {part.images}' for part in parts)})" if len(parts) > 1 else ""
    console.print(Text(f"{some(report.paths)}: masks, {_count(images, 'image')}{each}{share}"))
    _print_sizes(report, console)
    shown = parts if 1 < len(parts) <= _SHOWN_PARTS else []
    rows = []
    for name in parts[0].classes:
        counts = [part.classes[name] for part in parts]
        own = sum(count.pixels for count in counts)
        shares = [_share(count.pixels, part.pixels) for count, part in zip(counts, parts, strict=True)]
        row = [name, str(own), _share(own, pixels), str(sum(count.images for count in counts))]
        rows.append([*row, *(shares if shown else [])])
    print_table(("class", "pixels", "share", "images", *(part.name for part in shown)), rows)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _print_sizes(report: DataReport, console: Console) -> None:
    sizes = [f"{count} of {size}" for size, count in report.image_sizes.items()]
    console.print(Text(f"image sizes in pixels: {some(sizes, 4) or 'none'}"))


def _further(part: PartReport) -> dict[str, int]:
    return {"empty images": part.negatives, "masks": part.masks, "ignored": part.crowds}


def _print_boxes(report: DataReport) -> None:
    rows = []
    for part in report.parts:
        if (boxes := part.boxes) is not None:
            width, height = ("/".join(f"{side[q]:.0f}" for q in _QUANTILES) for side in (boxes.width, boxes.height))
            share = "/".join(f"{100 * boxes.share[q]:.2g}" for q in _QUANTILES)
            rows.append([part.name or "all", *map(str, (boxes.small, boxes.medium, boxes.large)), width, height, share])
    if rows:
        print_table(("boxes", "small", "medium", "large", "width px", "height px", "% of image"), rows)
        print("small: below 32 x 32 px; large: from 96 x 96; a/b/c: the 5th, 50th and 95th percentile\n")


def _print_cameras(report: DataReport) -> None:
    if report.cameras:
        rows = [
            [each.name, *map(str, (each.images, each.days, *(each.lights.get(light, "-") for light in LIGHTS)))]
            for each in report.cameras
        ]
        for row, each in zip(rows, report.cameras, strict=True):
            row.append(some(each.lacks, 3))
        print_table(("camera", "images", "days", *LIGHTS, "lacks"), rows)


def _print_near_duplicates(report: DataReport, console: Console) -> None:
    if not report.bursts:
        print("near-duplicates: none within a part")
        return
    inside = sum(len(burst.images) for burst in report.bursts)
    largest = report.bursts[0]
    bursts = f"{_count(len(report.bursts), 'burst')} of nearly equal images, {inside} in all"
    example = f"the largest has {len(largest.images)}, among them {Path(largest.images[0]).name}"
    console.print(Text(on_one_line(f"near-duplicates: {bursts}; {example}")))


def _print_faults(title: str, faults: list[Fault], base: Path, every: bool, console: Console) -> None:
    if not faults:
        return
    print(f"\n{title} ({len(faults)})")
    for kind, count in count_by_title(faults).items():
        _print_indented(Text(f"{count} x {kind}", style="bold"), 2, console)
        lines = [str(fault).removeprefix(f"{base}/") for fault in faults if fault.title == kind]
        if count > _SHOWN and not every:
            lines = [*lines[:_SHOWN], f"and {count - _SHOWN} more: --all shows them"]
        for line in lines:
            _print_indented(Text(on_one_line(line)), 6, console)


def _print_indented(text: Text, left: int, console: Console) -> None:
    console.print(Padding(text, (0, 0, 0, left), expand=False))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
