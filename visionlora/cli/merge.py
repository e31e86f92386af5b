"""``visionlora merge``."""

from pathlib import Path

from visionlora.cli.show import say
from visionlora.errors import InputError
from visionlora.exports.readme_code import loading_code
from visionlora.tasks.trained import load_trained, write_plain


def merge(run: Path, out: Path, checkpoint: Path | None, overwrite: bool, download: bool) -> None:
    """Write the merged state dict, and say how to load it without visionlora."""
    if out.is_dir() or out.suffix != ".safetensors":
        raise InputError(f"--out {out}: give a file that ends in .safetensors")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another name, or --overwrite")
    trained = load_trained(run, checkpoint, download=download)
    write_plain(trained.model, out, trained.classes, trained.preprocessing.to_dict(), trained.about)
    values = sum(tensor.numel() for tensor in trained.model.state_dict().values())
    say(f"{out}: {values:,} values, {out.stat().st_size / 1e6:.1f} MB. To load it:")
    print(loading_code(trained, out))
