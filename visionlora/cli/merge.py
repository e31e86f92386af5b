"""``visionlora merge``."""

from collections.abc import Sequence
from pathlib import Path

from visionlora.cli.show import say
from visionlora.errors import InputError
from visionlora.exports.readme_code import loading_code
from visionlora.tasks.registry import task_of
from visionlora.tasks.together import add_to, state_of, take_off
from visionlora.tasks.trained import load_trained, write_plain


def merge(
    run: Path,
    out: Path,
    checkpoint: Path | None,
    overwrite: bool,
    download: bool,
    others: Sequence[Path] = (),
    without: str = "",
) -> None:
    """Write the merged state dict, and say how to load it without visionlora; other runs' classes may come along."""
    if out.is_dir() or out.suffix != ".safetensors":
        raise InputError(f"--out {out}: give a file that ends in .safetensors")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another name, or --overwrite")
    trained = load_trained(run, checkpoint, download=download)
    task = task_of(trained.task)
    for other in others:
        trained = add_to(task, trained, load_trained(other, checkpoint, download=download))
    if without:
        trained = take_off(task, trained, without)
    write_plain(trained.model, out, trained.classes, trained.preprocessing.to_dict(), trained.about)
    values = sum(tensor.numel() for tensor in state_of(trained.model).values())
    say(f"{out}: {values:,} values, {out.stat().st_size / 1e6:.1f} MB. To load it:")
    print(loading_code(trained, out))
