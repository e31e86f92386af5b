"""``export``: from a run or an adapter to a folder for others, checked before it is kept."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionlora.errors import InputError, did_you_mean, some
from visionlora.exports import onnx_folder, onnx_heads_folder, timm_folder, torchvision_folder
from visionlora.exports.card import write_card
from visionlora.exports.folder import refuse_folder
from visionlora.exports.images import choose_images
from visionlora.exports.kinds import KINDS
from visionlora.exports.latency import over_images
from visionlora.exports.onnx_graph import import_onnx
from visionlora.exports.parity import TOLERANCE, Outputs
from visionlora.exports.scores import Progress, Scores, check_scores, groups_of, silent
from visionlora.exports.source import Source, load_source
from visionlora.files import new_folder
from visionlora.training.trained import load_trained

FORMATS: dict[str, Any] = {
    "timm": timm_folder,
    "torchvision": torchvision_folder,
    "onnx": onnx_folder,
    "onnx-heads": onnx_heads_folder,
}
"""``to`` -> its module, which has ``FILE``, ``refuse(source)``, ``write(source, folder, image)`` and
``load(source, folder)``, and for the README ``loader(source, where)`` and ``example(source)``."""


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        out: the folder.
        file: the model's, in the folder.
        sha256: of that file, in hexadecimal.
        bytes: its size.
        difference: the largest of an output from the adapted model's; see `parity`.
        compared: in words, on which images, and how much of their outputs.
        scores: on the run's validation images; None without them.
        seconds: median of one image by state: ``base``, ``adapted``, ``merged`` and ``exported``. Of a model whose
            every weight was trained there are the last two alone.
    """

    out: Path
    file: str
    sha256: str
    bytes: int
    difference: float
    compared: str
    scores: Scores | None
    seconds: dict[str, float]

    def ratios(self) -> dict[str, float]:
        """The seconds relative to the first state's."""
        first = next(iter(self.seconds.values()))
        return {name: value / first for name, value in self.seconds.items()}


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
) -> Exported:
    """Write a trained model as a folder that others can use, with a model card as README.md.

    The folder appears only after its model, loaded as the README says, has given what the adapted model gives, within
    `parity.TOLERANCE`. The run stays as it is.

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
        progress: shows what is being done; see `scores.Progress`.

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
    trained = load_trained(path, weights)
    FORMATS[to].refuse(Source(trained, None, None))
    whole = load_source(path, trained, weights)
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
    """Write, load again, compare, score, time and describe; see `export`."""
    form, kind = FORMATS[to], KINDS[source.trained.task]
    data, why = _validation(source, kind)
    groups = groups_of(data, by)
    chosen = choose_images(images, kind.paths(data) if data is not None else [], why)
    inputs = [kind.to_input(image, source.trained.preprocessing) for image in chosen.images]
    expected = _outputs(kind, source.reference, inputs)
    compared = f"{kind.amount(expected)} of {chosen.origin}"
    sizes = [sum(tensor.numel() for tensor in outputs.values()) for outputs in expected]
    if not any(sizes):
        raise InputError(f"the model finds nothing to compare on {chosen.origin}; give images with objects: --images")
    # The ONNX exporter follows one image through the model, and should meet detections on the way.
    example = inputs[sizes.index(max(sizes))]
    with new_folder(out) as folder:
        with progress(f"writing {form.FILE}", None):
            form.write(source, folder, example)
        model = form.load(source, folder)
        found = _outputs(kind, model, inputs)
        plain = source.trained.model
        difference = max(kind.difference(a, b, one, plain) for a, b, one in zip(found, expected, inputs, strict=True))
        if not difference <= TOLERANCE:
            raise InputError(
                f"the exported model differs from the adapted one by {difference:.1e} on {compared}, more than "
                f"{TOLERANCE:.0e}; nothing was kept, take another format"
            )
        scores = check_scores(source, kind, model, data, groups, progress) if score and data is not None else None
        with progress("timing", None):
            seconds = _seconds(source, model, kind, inputs, rounds)
        file = folder / form.FILE
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        result = Exported(out, form.FILE, digest, len(content), difference, compared, scores, seconds)
        write_card(source, to, form.loader(source), form.example(source), result, folder)
    return result


def _validation(source: Source, kind: Any) -> tuple[Any, str]:
    """The run's validation images as the task reads them, or None and in words why not."""
    if source.config is None:
        return None, "the run's settings are not at hand"
    try:
        return kind.validation(source.config, source.trained.classes), ""
    except InputError as error:
        return None, f"the run's validation images can't be read: {error}"


@torch.no_grad()
def _outputs(kind: Any, model: nn.Module, inputs: list[Tensor]) -> list[Outputs]:
    return [kind.run(model, one) for one in inputs]


def _seconds(source: Source, model: nn.Module, kind: Any, inputs: list[Tensor], rounds: int) -> dict[str, float]:
    states = {"base": source.base, "adapted": source.adapted, "merged": source.trained.model, "exported": model}
    there = {name: state for name, state in states.items() if state is not None}
    return over_images(there, kind.run, inputs, rounds)
