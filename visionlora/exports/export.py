"""``export``: from a run or an adapter to a folder for others, checked before it is kept."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from visionlora.errors import InputError, did_you_mean, some
from visionlora.exports.card import write_card
from visionlora.exports.folder import refuse_folder
from visionlora.exports.formats import FORMATS
from visionlora.exports.images import choose_images
from visionlora.exports.latency import over_images
from visionlora.exports.onnx.graph import import_onnx
from visionlora.exports.result import Exported
from visionlora.exports.scores import check_scores, groups_of
from visionlora.exports.source import Source, load_source
from visionlora.files import new_folder
from visionlora.tasks.base import Task
from visionlora.tasks.evaluation import Progress, silent
from visionlora.tasks.outputs import TOLERANCE, Outputs
from visionlora.tasks.protocols import Labelled
from visionlora.tasks.trained import load_trained


def export(
    source: str | Path,
    to: str,
    out: str | Path,
    images: Sequence[str | Path] = (),
    checkpoint: str | Path | None = None,
    rounds: int = 10,
    score: bool = True,
    by: str | None = None,
    progress: Progress = silent,
    download: bool = False,
) -> Exported:
    """Write a trained model as a folder that others can use, with a model card as README.md.

    The folder appears only after its model, loaded as the README says, has given what the adapted model gives, within
    ``tasks.outputs.TOLERANCE``. The run stays as it is.

    Args:
        source: a run folder, or an adapter's or model's file from one.
        to: ``timm`` (classifiers of timm's), ``torchvision`` (plain weights of all others), ``onnx`` (all) or
            ``onnx-heads`` (detectors of one stage up to their raw heads; what follows is NumPy).
        out: an empty or absent folder.
        images: files and folders to check with; by default some of the run's validation, else generated ones.
        checkpoint: the base's weights, if they are no longer where the run found them.
        rounds: how often the models are timed.
        score: also compare what the exported model scores on all of the run's validation images with its report.
        by: score the images with each value of this field by themselves; by default ``camera`` if they have it.
        progress: shows what is being done; see ``tasks.evaluation.Progress``.
        download: fetch the base from the hub that a file names which lies in no run folder.

    Raises:
        InputError: something that was given can't be used, the model can't be exported so, or the check failed.
    """
    path, out = Path(source), Path(out)
    if to not in FORMATS:
        raise InputError(f"--to {to}: unknown format{did_you_mean(to, FORMATS)}; there are {some(FORMATS)}")
    if rounds < 1:
        raise InputError(f"rounds is {rounds}; give 1 or more")
    refuse_folder(out)
    if path.is_dir() and path.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"--out {out}: lies in the run {path}, which is left as it is; give a folder outside")
    if to.startswith("onnx"):
        import_onnx()
    weights = Path(checkpoint) if checkpoint is not None else None
    trained = load_trained(path, weights, download=download)
    FORMATS[to].refuse(Source(trained, None, None))
    whole = load_source(path, trained, weights, download)
    return write_checked(whole, to, out, [Path(one) for one in images], rounds, score, by, progress)


def write_checked(
    source: Source,
    to: str,
    out: Path,
    images: Sequence[Path],
    rounds: int,
    score: bool = True,
    by: str | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write, load again, compare, score, time and describe; see ``export``."""
    form, task = FORMATS[to], source.task
    data, why = _validation(source)
    groups = groups_of(task, data, by)
    chosen = choose_images(images, task.paths(data) if data is not None else [], why)
    inputs = [task.to_input(image, source.trained.preprocessing) for image in chosen.images]
    expected = _outputs(task, source.reference, inputs)
    compared = f"{task.amount(expected)} of {chosen.origin}"
    sizes = [sum(tensor.numel() for tensor in outputs.values()) for outputs in expected]
    if not any(sizes):
        raise InputError(f"the model finds nothing to compare on {chosen.origin}; give images with objects: --images")
    # The ONNX exporter follows one image through the model, and should meet detections on the way.
    example = inputs[sizes.index(max(sizes))]
    with new_folder(out) as folder:
        with progress(f"writing {form.FILE}", None):
            form.write(source, folder, example)
        model = form.load(source, folder)
        found = _outputs(task, model, inputs)
        plain = source.trained.model
        difference = max(task.difference(a, b, one, plain) for a, b, one in zip(found, expected, inputs, strict=True))
        if not difference <= TOLERANCE:
            raise InputError(
                f"the exported model differs from the adapted one by {difference:.1e} on {compared}, more than "
                f"{TOLERANCE:.0e}; nothing was kept, take another format"
            )
        scores = check_scores(source, model, data, groups, progress) if score and data is not None else None
        with progress("timing", None):
            seconds = _seconds(source, model, inputs, rounds)
        file = folder / form.FILE
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        result = Exported(out, form.FILE, digest, len(content), difference, compared, scores, seconds)
        write_card(source, to, form.loader(source), form.example(source), result, folder)
    return result


def _validation(source: Source) -> tuple[Labelled | None, str]:
    """The run's validation images as its task reads them, or None and in words why not."""
    if source.config is None:
        return None, "the run's settings are not at hand"
    try:
        return source.task.images(source.config, "", source.trained.classes).data, ""
    except InputError as error:
        return None, f"the run's validation images can't be read: {error}"


@torch.no_grad()
def _outputs(task: Task, model: nn.Module, inputs: list[Tensor]) -> list[Outputs]:
    return [task.run(model, one) for one in inputs]


def _seconds(source: Source, model: nn.Module, inputs: list[Tensor], rounds: int) -> dict[str, float]:
    states = {"base": source.base, "adapted": source.adapted, "merged": source.trained.model, "exported": model}
    there = {name: state for name, state in states.items() if state is not None}
    return over_images(there, source.task.run, inputs, rounds)
