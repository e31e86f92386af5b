"""``visionlora export``."""

from pathlib import Path

from visionlora.cli.show import print_table, progress, say
from visionlora.exports.export import export as run_export
from visionlora.training.folder import FIGURES


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
