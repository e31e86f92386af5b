"""New classes beside a base's: what is kept and what is learnt, against training on both at once, fine-tuning and
distillation.
"""

import json
import statistics
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from visionlora.config import load_config
from visionlora.data.classification.transforms import eval_transform
from visionlora.data.images import read_image
from visionlora.models.joined_outputs import begins_with
from visionlora.sections import RunConfig
from visionlora.studies.side_by_side import side_by_side
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Trained
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained, write_plain
from visionlora.training.folder import REPORT
from visionlora.training.run import train

_CONFIGS = Path(__file__).parents[2] / "configs"
_BATCH = 20
_TIMED = 15
"""Images of the test days that detectors are timed on."""
WAYS = ("keep", "head", "distill", "full", "both", "alone")
"""To get a detector that knows a new class: from the base that knows the old one; both and alone from the backbone."""
_BESIDE, _BOTH, _ALONE = "base beside it", "both at once", "new class alone"


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("what", choices=["photos", "boxes"])
    parser.add_argument("data", type=Path, help="photos: an image folder; boxes: a COCO json whose images have a day")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the classifier, or of the backbone")
    parser.add_argument("--model", default="mobilenet_v2", help="photos: of the checkpoint (default: %(default)s)")
    parser.add_argument("--known", type=Path, help="photos: a folder of one for each of the base's classes, in order")
    parser.add_argument("--root", type=Path, help="boxes: the folder of the images (default: images beside the json)")
    parser.add_argument("--old", default="jimmy_johns", help="boxes: the base's class (default: %(default)s)")
    parser.add_argument("--new", default="fedex_truck", help="boxes: the one that comes (default: %(default)s)")
    parser.add_argument("--days", nargs="+", default=["20171027", "20171030"], help="boxes: to train on")
    parser.add_argument("--val", nargs="+", default=["20171101"], help="boxes: to choose the epoch by")
    parser.add_argument("--test", nargs="+", default=["20171103", "20171108"], help="boxes: to score")
    parser.add_argument("--from", dest="stages", nargs="+", default=[""], help="boxes: lora.from of adapters to try")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="boxes: (default: all)")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="boxes: keep the runs; those there are only scored")
    parser.add_argument("--jobs", type=int, default=1, help="boxes: runs trained side by side (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="boxes: that scores; equality to the bit is asked of a CPU")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default: 0 1)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of all runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results, after each run")


def run(arguments: Namespace) -> int:
    """Row by row, so that what there is when it is stopped can be compared."""
    console, rows = Console(), list[dict[str, Any]]()

    def take(seed: int, row: dict[str, Any]) -> None:
        rows.append({"seed": seed, **row})
        console.print(f"seed {seed}, " + "  ".join(f"{key} {_text(value)}" for key, value in row.items()))
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.what == "boxes":
            _boxes(arguments, arguments.runs or folder, take)
        else:
            for seed in arguments.seeds:
                _photos(arguments, seed, folder / str(seed), partial(take, seed))
    _show(rows, console)
    return 0


def _photos(arguments: Namespace, seed: int, folder: Path, take: Callable[[dict[str, Any]], None]) -> None:
    def config(out: str, *settings: str) -> RunConfig:
        given = [f"model.name={arguments.model}", f"model.checkpoint={arguments.checkpoint}", *arguments.set]
        given += [f"data.root={arguments.data}", f"train.seed={seed}", f"out={folder / out}", *settings]
        return load_config(_CONFIGS / "classification_efficientnet_lite0.yaml", given)

    # The run trains the adapter that it would train without keep_classes, and scores it alone and beside the base.
    result = train(config("keep", "train.keep_classes=true"), quiet=True)
    assert result.kept is not None
    base = _on_known(arguments, load_trained(result.folder, base=True))
    take({"way": "ordinary adapter", "new": result.scores["top1"]})
    told = _known(base, _on_known(arguments, load_trained(result.folder)))
    take({"way": "base beside it", "new": result.kept.scores["top1"], **told})
    distilled = train(config("distill", "train.keep_classes=distill"), quiet=True)
    assert distilled.kept is not None
    take(
        {
            "way": "distilled",
            "new": distilled.scores["top1"],
            "agreement": distilled.kept.agreement,
            **_known(base, _on_known(arguments, load_trained(distilled.folder))),
        }
    )
    take({"way": "base", **_known(base, base)})


@torch.no_grad()
def _on_known(arguments: Namespace, trained: Trained) -> Tensor:
    """A model's logits on a photo of each of the base's classes, (photos, classes); none without photos."""
    paths = [] if arguments.known is None else sorted(arguments.known.glob("*.jpg"))
    transform, model = eval_transform(trained.preprocessing), trained.model.to(memory_format=torch.channels_last)
    logits = []
    for start in range(0, len(paths), _BATCH):
        images = torch.stack([transform(read_image(path)) for path in paths[start : start + _BATCH]])
        logits.append(model(images.contiguous(memory_format=torch.channels_last)))
    return torch.cat(logits) if logits else torch.empty(0, len(trained.classes))


def _known(base: Tensor, found: Tensor) -> dict[str, Any]:
    """On photos of the base's classes in order: right answers, those by a new class, and whether logits are equal."""
    if not len(base):
        return {}
    answers = found.argmax(dim=1)
    right, taken = answers == torch.arange(len(base)), answers >= base.shape[1]
    means = {"known": right.float().mean().item(), "taken": taken.float().mean().item()}
    return {**means, "identical": begins_with(found, base)}


def _boxes(arguments: Namespace, folder: Path, take: Callable[[int, dict[str, Any]], None]) -> None:
    """The bases of all seeds, and then what is trained from them."""
    folder.mkdir(parents=True, exist_ok=True)
    old, new = arguments.old, arguments.new
    document = json.loads(arguments.data.read_text(encoding="utf-8"))
    files = {name: _only(document, names, folder / f"{name}.json") for name, names in _named(old, new).items()}
    bases = {seed: _run(arguments, seed, folder, "base", files["old"]) for seed in arguments.seeds}
    first = {(seed, "base"): base for seed, base in bases.items()}
    for way, name, data in (("both", _BOTH, "both"), ("alone", _ALONE, "new")):
        if way in arguments.ways:
            first |= {(seed, name): _run(arguments, seed, folder, name, files[data]) for seed in arguments.seeds}
    for (seed, way), scores in _trained_and_scored(arguments, first, files["both"], {}):
        take(seed, {"way": way, **scores})
    runs, known = {}, {}
    for seed, base in bases.items():
        whole = folder / f"{seed}_base.safetensors"
        if not whole.exists():
            trained = load_trained(base.out)
            write_plain(trained.model, whole, trained.classes, trained.preprocessing.to_dict(), trained.about)
        for way, (data, *settings) in _from_base(arguments, whole).items():
            runs[seed, way] = _run(arguments, seed, folder, way, files[data], *settings)
            if way.startswith(_BESIDE) and arguments.device == "cpu":
                known[seed, way] = base
    for (seed, way), scores in _trained_and_scored(arguments, runs, files["both"], known):
        take(seed, {"way": way, **scores})


Key = tuple[int, str]
"""Seed and way."""


def _trained_and_scored(
    arguments: Namespace, runs: Mapping[Key, RunConfig], both: Path, bases: Mapping[Key, RunConfig]
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """As they come; beside ``bases`` some are compared to the bit, too."""
    calls = {key: partial(_train_and_score, arguments, run, both, bases.get(key)) for key, run in runs.items()}
    for key, scores, _ in side_by_side(calls, arguments.jobs, Console(quiet=True), lambda: None):
        yield key, scores


def _train_and_score(
    arguments: Namespace, run: RunConfig, both: Path, base: RunConfig | None, _console: Console
) -> dict[str, Any]:
    if not (run.out / REPORT).exists():
        train(run, quiet=True, overwrite=True)
    scores = _scores(arguments, run, both)
    if base is None:
        return scores
    return {**scores, **_beside(arguments, load_trained(run.out), load_trained(base.out))}


def _from_base(arguments: Namespace, base: Path) -> dict[str, tuple[str, ...]]:
    """The table's rows that go on from the base: annotations, and settings."""
    whole, given = f"model.checkpoint={base}", {}
    if "keep" in arguments.ways:
        for stage in arguments.stages:
            begins = (f"lora.from={stage}",) if stage else ()
            name = f"{_BESIDE}{f', from {stage}' if stage else ''}"
            given[name] = ("new", whole, "train.keep_classes=true", *begins)
    if "head" in arguments.ways:
        name = f"{_BESIDE}, without an adapter on the backbone"
        given[name] = ("new", whole, "train.keep_classes=true", "train.method=head")
    if "distill" in arguments.ways:
        given["distilled"] = ("new", whole, "train.keep_classes=distill")
    if "full" in arguments.ways:
        given["fine-tuned on the new"] = ("new_of_both", whole, "train.method=full", "train.lr=3e-4")
    return given


def _run(arguments: Namespace, seed: int, folder: Path, way: str, annotations: Path, *settings: str) -> RunConfig:
    days = [f"data.{part}.day=[{','.join(days)}]" for part, days in (("train", arguments.days), ("val", arguments.val))]
    given = [f"data.annotations={annotations}", f"data.root={_root(arguments)}", *days, f"train.seed={seed}"]
    given += [f"model.checkpoint={arguments.checkpoint}", "model.size=480", "train.epochs=15", "train.evaluate_every=3"]
    given += ["train.lr=1e-3", "train.head_lr=1e-3", f"out={folder / f'{seed} {way}'.replace(' ', '_')}"]
    return load_config(_CONFIGS / "detection_retinanet_efficientnet_lite0.yaml", [*given, *arguments.set, *settings])


def _named(old: str, new: str) -> dict[str, tuple[list[str], list[str]]]:
    """Name of a file -> its classes, and those of them whose objects it has."""
    both = [old, new]
    return {"old": ([old], [old]), "new": ([new], [new]), "new_of_both": (both, [new]), "both": (both, both)}


def _only(document: dict[str, Any], names: tuple[list[str], list[str]], path: Path) -> Path:
    classes, shown = names
    number = {category["name"]: category["id"] for category in document["categories"]}
    ids = {number[name] for name in shown}
    things = [thing for thing in document["annotations"] if thing["category_id"] in ids]
    categories = [category for name in classes for category in document["categories"] if category["name"] == name]
    path.write_text(json.dumps({**document, "annotations": things, "categories": categories}), encoding="utf-8")
    return path


def _root(arguments: Namespace) -> Path:
    root: Path = arguments.root or arguments.data.parent / "images"
    return root


def _scores(arguments: Namespace, config: RunConfig, both: Path) -> dict[str, Any]:
    """AP50 of each class on the test days."""
    trained, task = load_trained(config.out), task_of(config.task)
    data = config.data.model_copy(update={"annotations": both, "leave_out": _unknown(arguments, trained)})
    test = task.images(config.model_copy(update={"data": data}), f"day={','.join(arguments.test)}", trained.classes)
    per_class = score(trained, test.data, 8, 0, torch.device(arguments.device)).per_class()
    names = {"old AP50": arguments.old, "new AP50": arguments.new}
    return {key: per_class[name]["AP50"] for key, name in names.items() if "AP50" in per_class.get(name, {})}


def _unknown(arguments: Namespace, trained: Trained) -> list[str]:
    return [name for name in (arguments.old, arguments.new) if name not in trained.classes]


@torch.no_grad()
def _beside(arguments: Namespace, trained: Trained, base: Trained) -> dict[str, Any]:
    """Whether all of the base's boxes and scores of the test days are equal, and the time of an image against its."""
    task, same, ratios = task_of(trained.task), True, []
    images = json.loads(arguments.data.read_text(encoding="utf-8"))["images"]
    chosen = [image["file_name"] for image in images if image["day"] in arguments.test]
    for index, name in enumerate(chosen):
        image = [task.to_input(read_image(_root(arguments) / name), trained.preprocessing)]
        begun = time.perf_counter()
        found = trained.model(image)
        between = time.perf_counter()
        alone = base.model(image)
        if 2 <= index < _TIMED:
            ratios.append((between - begun) / (time.perf_counter() - between))
        same = same and begins_with(found, alone)
    return {"identical": same, "time / base": statistics.median(ratios) if ratios else None}


def _show(rows: list[dict[str, Any]], console: Console) -> None:
    """Means over the seeds, way by way."""
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in ("seed", "way")]
    table = Table("", *columns)
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        cells = [[row[key] for row in own if row.get(key) is not None] for key in columns]
        table.add_row(way, *(_mean(values) for values in cells))
    console.print(table)
    console.print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


def _mean(values: list[Any]) -> str:
    if not values:
        return "-"
    if isinstance(values[0], bool):
        return "yes" if all(values) else "no"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
