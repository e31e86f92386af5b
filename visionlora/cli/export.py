"""``visionlora export``."""

from pathlib import Path

from visionlora.cli.show import print_table, progress, say
from visionlora.errors import InputError
from visionlora.exports.export import export as run_export
from visionlora.exports.fleet import export_fleet
from visionlora.training.folder import FIGURES


def one_of(run: Path | None, fleet: Path | None, to: str) -> Path:
    """What is exported. InputError unless it is one of the two, and a fleet ``to`` onnx."""
    if run is None and fleet is None:
        raise InputError("nothing to export; give a run folder or an adapter's file, or a fleet's folder with --fleet")
    if run is not None and fleet is not None:
        raise InputError(f"{run}: give it or --fleet {fleet}, not both")
    if fleet is not None and to != "onnx":
        raise InputError(f"--to {to}: a fleet's cameras can only be in one file --to onnx")
    source = run if fleet is None else fleet
    assert source is not None
    return source


def export_cameras(fleet: Path, out: Path, images: list[Path], checkpoint: Path | None, download: bool) -> None:
    """Write a fleet's cameras into one file, and print what was checked."""
    result = export_fleet(fleet, out, images, checkpoint, download)
    rows = [[name, f"{value:.1e}"] for name, value in result.differences.items()]
    print_table(["camera", "difference of a logit"], rows)
    say(f"compared on {result.compared}, one by one and in a mixed batch")
    say(f"{result.out / result.file}: {result.bytes / 1e6:.1f} MB, sha256 {result.sha256}")
    say(f"how to load it, and each camera's index: {result.out / 'README.md'}")


def export(
    run: Path,
    to: str,
    out: Path,
    images: list[Path],
    checkpoint: Path | None,
    rounds: int,
    score: bool,
    by: str | None,
    download: bool,
) -> None:
    """Write the folder, and print what was checked and measured."""
    result = run_export(run, to, out, images, checkpoint, rounds, score, by, progress, download)
    rows = [
        [name, f"{1000 * seconds:.1f}", f"{ratio:.2f}"]
        for (name, seconds), ratio in zip(result.seconds.items(), result.ratios().values(), strict=True)
    ]
    print_table(["one image", "ms", f"time / {rows[0][0]}"], rows)
    say(f"{result.out / result.file}: {result.bytes / 1e6:.1f} MB, sha256 {result.sha256}")
    say(f"largest difference from the adapted model: {result.difference:.1e}, on {result.compared}")
    if result.scores:
        found = "  ".join(f"{name} {value:.4f}" for name, value in result.scores.exported.items())
        say(f"scores on {result.scores.images} validation images of the run: {found}")
    say(f"how to load it, and what it is: {result.out / 'README.md'}")
    if (result.out / FIGURES).is_dir():
        say(f"the run's figures show validation images; delete {result.out / FIGURES} if they must not leave")
