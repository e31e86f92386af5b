"""``visionlora convert``."""

from pathlib import Path

from visionlora.adapters.peft.folder import load_peft, read_tensors, save_peft
from visionlora.adapters.peft.settings import CONFIG
from visionlora.adapters.saving import save_adapter
from visionlora.cli.show import say
from visionlora.errors import InputError
from visionlora.models.classifier import create_classifier
from visionlora.tasks.trained import load_trained


def convert(source: Path, out: Path, model: str, classes: int | None, checkpoint: Path | None, download: bool) -> None:
    """Write ``out`` from PEFT's folder or for PEFT, whichever ``source`` is not."""
    if (source / CONFIG).is_file():
        _from_peft(source, out, model, classes, checkpoint, download)
        return
    if model or classes:
        raise InputError(f"{source}: holds no {CONFIG} of PEFT's; --model and --classes are for one that does")
    trained = load_trained(source, checkpoint, merged=False, download=download)
    save_peft(trained.model, out)
    say(f"{out}: read it with peft.PeftModel.from_pretrained(model, {str(out)!r})")


def _from_peft(
    source: Path, out: Path, name: str, classes: int | None, checkpoint: Path | None, download: bool
) -> None:
    if out.suffix != ".safetensors" or out.exists():
        raise InputError(f"--out {out}: give a new file that ends in .safetensors")
    if not name:
        raise InputError(f"{source}: does not say which base it is for; give its timm or torchvision name with --model")
    if checkpoint is None and not download:
        raise InputError(f"--model {name}: give its weights with --checkpoint, or fetch them with --download")
    tensors = read_tensors(source)
    if classes is None:
        head = create_classifier(name, 2, pretrained=False).head[0]
        # Before PEFT 0.15 the name of a saved module had more to it.
        found = [tensors[key] for end in ("weight", "modules_to_save.weight") if (key := f"{head}.{end}") in tensors]
        if not found or not found[0].dim():
            raise InputError(f"{source}: holds no '{head}' that would say how many outputs there are; give --classes")
        classes = len(found[0])
    base = create_classifier(name, classes, checkpoint=checkpoint).model
    print(load_peft(base, source))
    save_adapter(base, out)
    say(f"{out}: load it with visionlora.load_adapter")
