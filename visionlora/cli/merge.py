"""``visionlora merge``."""

from pathlib import Path

from visionlora.config_errors import sections_of
from visionlora.errors import InputError
from visionlora.models.classifier import creation_code
from visionlora.tasks.registry import schema_of, task_of
from visionlora.training.plain import write_plain
from visionlora.training.trained import Trained, load_trained


def merge(run: Path, out: Path, checkpoint: Path | None, overwrite: bool) -> None:
    """Write the merged state dict, and say how to load it without visionlora."""
    if out.is_dir() or out.suffix != ".safetensors":
        raise InputError(f"--out {out}: give a file that ends in .safetensors")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another name, or --overwrite")
    trained = load_trained(run, checkpoint)
    write_plain(trained.model, out, trained.classes, trained.preprocessing.to_dict(), trained.about)
    values = sum(tensor.numel() for tensor in trained.model.state_dict().values())
    print(f"{out}: {values:,} values, {out.stat().st_size / 1e6:.1f} MB. To load it:")
    print(_creation_code(trained, out))
    print(f"from safetensors.torch import load_file\nmodel.load_state_dict(load_file({str(out)!r}))")


def _creation_code(trained: Trained, out: Path) -> str:
    """Python that creates the same plain model, as ``model``."""
    if trained.task == "classification":
        pre = trained.preprocessing
        return creation_code(trained.about["model"]["name"], len(trained.classes), (pre.height, pre.width))
    schema = sections_of(schema_of(trained.task))["model"]
    section = task_of(trained.task).without_base(schema.model_validate(trained.about["model"]), out)
    settings = section.model_dump(mode="json", exclude_none=True)
    return (
        f"from {schema.__module__} import {schema.__name__}\nfrom visionlora.tasks.{trained.task}.task import build\n"
        f"model = build({schema.__name__}(**{settings!r}), {trained.classes!r}).model"
    )
