"""``export --fleet``: the cameras of a fleet's folder as one ONNX file, checked camera by camera before it is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionlora.adapters.fleet.fleet import Fleet
from visionlora.adapters.header import Header
from visionlora.checksums import file_digest
from visionlora.errors import InputError, some
from visionlora.exports.folder import refuse_folder
from visionlora.exports.images import choose_images
from visionlora.exports.onnx.bank import banked
from visionlora.exports.onnx.folder import fields_of, write_script
from visionlora.exports.onnx.graph import import_onnx, write_banked
from visionlora.exports.onnx.session import FILE
from visionlora.exports.source import Source
from visionlora.files import new_folder
from visionlora.fleet.registry import adapter_files
from visionlora.models.weights import first_line
from visionlora.tasks.models import Trained
from visionlora.tasks.outputs import TOLERANCE, logits_difference
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained

TASK = "classification"
"""The one whose models can be exported so."""


@dataclass(frozen=True)
class ExportedFleet:
    """What an export came to: the file, its hash and size, each camera's largest difference, seen on what."""

    out: Path
    file: str
    sha256: str
    bytes: int
    differences: dict[str, float]
    compared: str


def export_fleet(
    folder: Path, out: Path, images: Sequence[Path] = (), checkpoint: Path | None = None, download: bool = False
) -> ExportedFleet:
    """Write one ONNX file: ``images`` (N, 3, H, W), ``camera`` (N,) int64 -> ``logits`` (N, classes).

    A camera's index is its place in the file's field ``cameras``, which has classes and preprocessing of each. Classes
    that another camera has more of get a logit of -10000. The file is kept only if onnxruntime gives with it what each
    camera's own adapted model gives, within ``tasks.outputs.TOLERANCE``, one by one and in a mixed batch.

    Args:
        folder: of the fleet; every camera's current version is taken.
        out: an empty or absent folder; it gets model.onnx, predict.py and a README.
        images: files and folders to check with; by default generated ones.
        checkpoint: the base's weights, if they are no longer where the runs found them.
        download: fetch the base from its hub.

    Raises:
        InputError: a file is damaged, cameras are no classifiers or see images of other sizes, the model or a method
            can't be in one graph, or the check failed.
    """
    refuse_folder(out)
    import_onnx()
    files = adapter_files(folder)
    first = load_trained(next(iter(files.values())), checkpoint, base=True, download=download, alone=True)
    if first.task != TASK:
        raise InputError(
            f"{folder}: its cameras are {task_of(first.task).noun}s, and only classifiers can be chosen by an index in "
            "one graph; export each camera by itself (visionlora export)"
        )
    fleet = Fleet(first.model, files)
    cameras = {name: _trained(first, fleet.headers[name], files[name]) for name in fleet.cameras}
    _refuse_sizes(cameras, folder)
    chosen = choose_images(images, [], "a fleet's folder holds none")
    inputs = {
        name: torch.stack([task_of(TASK).to_input(image, trained.preprocessing) for image in chosen.images])
        for name, trained in cameras.items()
    }
    model = banked(fleet, inputs[fleet.cameras[0]])
    fields = {name: fields_of(Source(trained, None, None)) for name, trained in cameras.items()}
    with new_folder(out) as made:
        write_banked(model, inputs[fleet.cameras[0]][:1], made / FILE, {**fields[fleet.cameras[0]], "cameras": fields})
        differences = _differences(fleet, inputs, made / FILE)
        worst = max(differences, key=differences.__getitem__)
        if not differences[worst] <= TOLERANCE:
            raise InputError(
                f"'{worst}' of the exported fleet differs from its adapted model by {differences[worst]:.1e}, over "
                f"{TOLERANCE:.0e}; nothing was kept, export each camera by itself (visionlora export)"
            )
        write_script(made, "predict.py")
        (made / "README.md").write_text(_readme(fields, chosen.origin, differences), encoding="utf-8")
        size, digest = (made / FILE).stat().st_size, file_digest(made / FILE)
    return ExportedFleet(out, FILE, digest, size, differences, chosen.origin)


def _trained(first: Trained, header: Header, path: Path) -> Trained:
    """A camera's model in words: the base's, with what its own file says."""
    if header.extra.get("task", TASK) != TASK or not header.classes or not header.preprocessing:
        raise InputError(f"{path}: does not say its classes and preprocessing as a classifier; add a run's file")
    shown = task_of(TASK).read_preprocessing(header.preprocessing)
    return replace(first, classes=header.classes, preprocessing=shown, path=path, about=header.extra)


def _refuse_sizes(cameras: dict[str, Trained], folder: Path) -> None:
    sizes = {name: (trained.preprocessing.height, trained.preprocessing.width) for name, trained in cameras.items()}
    if len(set(sizes.values())) > 1:
        told = some(f"{name} {height} x {width}" for name, (height, width) in sizes.items())
        raise InputError(
            f"{folder}: cameras see images of other sizes ({told}), and one graph has one; train them alike"
        )


@torch.no_grad()
def _differences(fleet: Fleet, inputs: dict[str, Tensor], file: Path) -> dict[str, float]:
    """Each camera's largest difference from its own adapted model, alone and in a batch with the others."""
    _, onnxruntime = import_onnx()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    expected = {name: fleet.switch(name)(batch) for name, batch in inputs.items()}
    fleet.switch(None)
    found: dict[str, float] = dict.fromkeys(inputs, 0.0)

    def compare(names: list[str], images: Tensor, answers: list[Tensor]) -> None:
        camera = torch.tensor([fleet.cameras.index(name) for name in names])
        try:
            (logits,) = session.run(None, {"images": images.numpy(), "camera": camera.numpy()})
        except Exception as error:  # onnxruntime's errors have no public base class
            raise InputError(
                f"the exported fleet fails on a batch of {len(images)} ({first_line(error)[:200]}); export each "
                "camera by itself (visionlora export)"
            ) from error
        for name, mine, theirs in zip(names, torch.from_numpy(logits), answers, strict=True):
            own = {"logits": mine[: len(theirs)]}
            found[name] = max(found[name], logits_difference(own, {"logits": theirs}))

    for name, batch in inputs.items():
        for at in range(len(batch)):
            compare([name], batch[at : at + 1], [expected[name][at]])
    names = list(inputs)
    mixed = [(names[at % len(names)], at // len(names) % len(inputs[names[0]])) for at in range(len(names) + 1)]
    compare(
        [name for name, _ in mixed],
        torch.stack([inputs[name][at] for name, at in mixed]),
        [expected[name][at] for name, at in mixed],
    )
    return found


def _readme(fields: dict[str, Any], origin: str, differences: dict[str, float]) -> str:
    rows = "\n".join(
        f"| {number} | {name} | {', '.join(of['classes'])} | {differences[name]:.1e} |"
        for number, (name, of) in enumerate(fields.items())
    )
    camera = next(iter(fields))
    return f"""# A fleet of {len(fields)} cameras in one file

`{FILE}` takes `images` (N, 3, H, W) and `camera` (N,) int64, the index of each image's camera, and gives `logits`. Each
camera's classes are the first of them; what another camera has more of has a logit of -10000.

| camera's index | name | classes | largest difference of a logit |
|---|---|---|---|
{rows}

Differences are from each camera's own adapted model, seen with onnxruntime on {origin}. With numpy, pillow and
onnxruntime alone:

```python
from predict import Model
model = Model({FILE!r}, camera={camera!r})
print(model("image.jpg"))
```
"""
