"""``visionlora merge``."""

import json
from pathlib import Path

from visionlora.config import SCHEMAS
from visionlora.config_errors import sections_of
from visionlora.errors import InputError
from visionlora.files import write_atomic, write_tensors
from visionlora.models.classifier import creation_code
from visionlora.training.tasks import TASKS
from visionlora.training.trained import Trained, load_trained


def merge(run: Path, out: Path, checkpoint: Path | None, overwrite: bool) -> None:
    """Write the merged state dict, and say how to load it without visionlora."""
    if out.is_dir() or out.suffix != ".safetensors":
        raise InputError(f"--out {out}: give a file that ends in .safetensors")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another name, or --overwrite")
    trained = load_trained(run, checkpoint)
    about = {"classes": trained.classes, "preprocessing": trained.preprocessing.to_dict(), "extra": trained.about}
    header = {"format": "pt", **{key: json.dumps(value) for key, value in about.items()}}
    tensors = {key: value.detach().contiguous().clone() for key, value in trained.model.state_dict().items()}
    write_atomic(out, lambda temporary: write_tensors(tensors, temporary, header))
    print(f"{out}: {sum(t.numel() for t in tensors.values()):,} values, {out.stat().st_size / 1e6:.1f} MB. To load it:")
    print(_creation_code(trained, out))
    print(f"from safetensors.torch import load_file\nmodel.load_state_dict(load_file({str(out)!r}))")


def _creation_code(trained: Trained, out: Path) -> str:
    """Python that creates the same plain model, as ``model``."""
    if trained.task == "classification":
        pre = trained.preprocessing
        return creation_code(trained.about["model"]["name"], len(trained.classes), (pre.height, pre.width))
    schema = sections_of(SCHEMAS[trained.task])["model"]
    section = TASKS[trained.task].without_base(schema.model_validate(trained.about["model"]), out)
    settings = section.model_dump(mode="json", exclude_none=True)
    return (
        f"from visionlora.config import {schema.__name__}\nfrom visionlora.tasks.{trained.task} import build\n"
        f"model = build({schema.__name__}(**{settings!r}), {trained.classes!r}).model"
    )
