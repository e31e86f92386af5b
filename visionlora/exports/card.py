"""The README.md of an exported folder: a model card."""

import shutil
from pathlib import Path
from typing import Any

from visionlora.exports.card_metrics import metrics, table
from visionlora.exports.result import Exported
from visionlora.exports.source import Source
from visionlora.tasks.models import Trained
from visionlora.tasks.together import old_and_new, together_of
from visionlora.training.folder import FIGURES

_LISTED = 100
"""Classes that the card names."""
_NEEDS = {
    "timm": "timm alone",
    "onnx": "numpy, pillow and onnxruntime alone",
    "onnx-heads": "numpy, pillow and onnxruntime alone",
    "torchvision": "torchvision and safetensors alone",
    "visionlora": "visionlora, which builds this decoder or detector over timm's backbone",
}


def write_card(source: Source, to: str, loader: str, example: str, result: Exported, folder: Path) -> None:
    """Write README.md, and the run's figures beside it."""
    name = source.trained.about["model"]["name"]
    needs = _NEEDS["visionlora" if to == "torchvision" and source.library == "visionlora" else to]
    parts = [
        f"# {result.out.absolute().name}",
        f"A model for {source.trained.task}: {_base_name(source)}, adapted with visionlora and merged.",
        f"## Use\n\nIn this folder, with {needs}:\n\n```python\n{_imports_first(loader, example)}\n```",
        _base(source),
        _data(source),
        _classes(source.trained),
        metrics(source, result.scores),
        _cost(source),
        _check(result),
        _figures(source, folder),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (folder / "README.md").write_text(f"---\n{_front(name, source, to)}---\n\n{text}", encoding="utf-8")


def _front(name: str, source: Source, to: str) -> str:
    lines = [f"pipeline_tag: {source.task.pipeline}"] if source.task.pipeline else []
    lines.append(f"base_model: {source.about_model().get('backbone') or name}")
    if to == "timm":
        lines.append("library_name: timm")
    return "".join(f"{line}\n" for line in lines)


def _imports_first(*parts: str) -> str:
    lines = [line for part in parts for line in part.splitlines()]
    return "\n".join(sorted(lines, key=lambda line: not line.startswith(("import ", "from "))))


def _base_name(source: Source) -> str:
    model = source.about_model()
    return f"{model['name']} over {model['backbone']}" if model.get("backbone") else str(model["name"])


def _base(source: Source) -> str:
    model = source.about_model()
    licence = _licence(source)
    stated = f"{licence}, as timm states it" if licence else "not stated by its library; ask where the weights are from"
    if model.get("checkpoint"):
        weights = f"the local file {model['checkpoint']}"
        stated = "not known for that file" + (f"; timm's own weights of that name are {licence}" if licence else "")
    elif model["pretrained"]:
        weights = f"{'torchvision' if source.library == 'torchvision' else 'timm'}'s own"
    else:
        weights, stated = "random: nothing was pretrained", "none needed"
    return f"## Base\n\n- model: {_base_name(source)}\n- weights: {weights}\n- licence: {stated}"


def _licence(source: Source) -> str | None:
    """What timm says of its weights."""
    model = source.trained.model
    for module in (model, getattr(model, "backbone", None), getattr(getattr(model, "backbone", None), "body", None)):
        found = (getattr(module, "pretrained_cfg", None) or {}).get("license")
        if found:
            return str(found)
    return None


def _data(source: Source) -> str:
    if source.config is None:
        return ""
    data = source.config.data.model_dump(exclude_defaults=True, exclude={"workers", "skip_unreadable"})
    # Where things lie on the machine that trained is nobody's business.
    shown = {key: _plain(value) for key, value in data.items()}
    lines = "\n".join(f"- {key}: {value}" for key, value in shown.items())
    return f"## Data\n\n{lines or '- not named by the run'}"


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(str(_plain(one)) for one in value)
    return value.name if isinstance(value, Path) else value


def _classes(trained: Trained) -> str:
    parts = old_and_new(trained)
    if parts is None:
        return f"## Classes\n\n{_listed(trained.classes)}"
    old, new = parts
    kept = "whose outputs are the base's own" if together_of(trained) else "learnt again from the base's answers"
    return f"## Classes\n\n{len(new)} new:\n\n{_listed(new)}\n\n{len(old)} of the base, {kept}:\n\n{_listed(old)}"


def _listed(classes: list[str]) -> str:
    listed = "\n".join(f"{index}. {word}" for index, word in enumerate(classes[:_LISTED]))
    more = f"\n\nand {len(classes) - _LISTED} more, which the model's files name" if len(classes) > _LISTED else ""
    return f"{listed}{more}"


def _cost(source: Source) -> str:
    report = source.report
    if not report:
        return ""
    epochs = f" (of {source.config.train.epochs})" if source.config else ""
    return (
        f"## Training\n\n- best epoch: {report['best_epoch']}{epochs}\n- parameters trained: {report['trainable']:,}\n"
        f"- file that holds them: {report['saved_bytes'] / 1e6:.2f} MB\n- seconds: {report['seconds']:.0f}"
    )


def _check(result: Exported) -> str:
    rows = [[name, f"{ratio:.2f}"] for name, ratio in result.ratios().items()]
    return (
        f"## Check\n\n- {result.file}: {result.bytes:,} bytes, sha256 `{result.sha256}`\n"
        f"- compared with the adapted model on {result.compared}: largest difference {result.difference:.1e}\n\n"
        "Time for one image, side by side in one run on one machine:\n\n"
        + table(["state", f"time / {rows[0][0]}"], rows)
    )


def _figures(source: Source, folder: Path) -> str:
    """Copies of the run's, and what shows them."""
    if source.folder is None or not (figures := sorted((source.folder / FIGURES).glob("*.png"))):
        return ""
    (folder / FIGURES).mkdir()
    for path in figures:
        shutil.copyfile(path, folder / FIGURES / path.name)
    shown = "\n\n".join(f"![{path.stem}]({FIGURES}/{path.name})" for path in figures)
    return f"## Figures\n\nFrom the run's last evaluation.\n\n{shown}"
