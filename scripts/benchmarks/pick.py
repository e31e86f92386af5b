"""AP50 on other days of a detector trained on frames that `pick` chooses, on random and on evenly spaced ones."""

import json
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from visionlora.config import load_config
from visionlora.footage.picking import farthest_first, image_features
from visionlora.models.classifier import create_classifier
from visionlora.tasks.evaluation import score
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained
from visionlora.training.run import train

_CONFIG = Path(__file__).parents[2] / "configs" / "detection_retinanet_efficientnet_lite0.yaml"
_WAYS = ("pick", "random", "even")


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("annotations", type=Path, help="a COCO json whose images have a day")
    parser.add_argument("--root", type=Path, help="the folder of its images (default: images beside it)")
    parser.add_argument("--days", nargs="+", required=True, help="to choose from")
    parser.add_argument("--val", nargs="+", required=True, help="the day by which the best epoch is chosen")
    parser.add_argument("--test", nargs="+", required=True, help="the days that are scored")
    parser.add_argument("--count", type=int, default=60, help="frames to train on (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--ways", nargs="+", choices=_WAYS, default=list(_WAYS))
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="sees the frames (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the model's weights, and the backbone's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results, after each run")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of the runs")


def run(arguments: Namespace) -> int:
    """Seed by seed, so that what there is when it is stopped can be compared."""
    document = json.loads(arguments.annotations.read_text(encoding="utf-8"))
    images = [image for image in document["images"] if image["day"] in arguments.days]
    results: list[dict[str, Any]] = []
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for way in arguments.ways:
                chosen = _choose(way, images, seed, arguments)
                scores = _train(chosen, document, Path(folder) / f"{way}_{seed}", seed, arguments)
                results.append({"way": way, "seed": seed, **scores})
                console.print(f"seed {seed}, {way}: AP50 {scores['AP50']:.3f}, mAP {scores['mAP']:.3f}")
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = Table("", *(f"AP50, seed {seed}" for seed in arguments.seeds), "mean AP50", "mean mAP")
    for way in arguments.ways:
        own = [result for result in results if result["way"] == way]
        means = [f"{np.mean([result[name] for result in own]):.3f}" for name in ("AP50", "mAP")]
        table.add_row(way, *(f"{result['AP50']:.3f}" for result in own), *means)
    console.print(table)
    console.print(
        f"{arguments.count} of {len(images)} frames; {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    return 0


def _choose(way: str, images: list[dict[str, Any]], seed: int, arguments: Namespace) -> list[dict[str, Any]]:
    if way == "random":
        chosen = np.random.default_rng(seed).choice(len(images), arguments.count, replace=False).tolist()
    elif way == "even":
        chosen = np.linspace(0, len(images) - 1, arguments.count).round().astype(int).tolist()
    else:
        paths = [_root(arguments) / image["file_name"] for image in images]
        model = create_classifier(arguments.model, 1000, checkpoint=arguments.checkpoint)
        chosen = [index for index, _ in farthest_first(image_features(model, paths), arguments.count)]
    return [images[index] for index in sorted(chosen)]


def _root(arguments: Namespace) -> Path:
    root: Path = arguments.root or arguments.annotations.parent / "images"
    return root


def _train(
    chosen: list[dict[str, Any]], document: dict[str, Any], folder: Path, seed: int, arguments: Namespace
) -> dict[str, float]:
    """Test scores of a run on these images."""
    kept = {image["id"] for image in chosen}
    others = [image for image in document["images"] if image["day"] not in arguments.days or image["id"] in kept]
    ids = {image["id"] for image in others}
    things = [thing for thing in document["annotations"] if thing["image_id"] in ids]
    folder.mkdir()
    path = folder / "annotations.json"
    path.write_text(json.dumps({**document, "images": others, "annotations": things}), encoding="utf-8")
    config = load_config(
        _CONFIG,
        [
            f"model.checkpoint={arguments.checkpoint}",
            f"data.annotations={path}",
            f"data.root={_root(arguments)}",
            f"data.train.day=[{','.join(arguments.days)}]",
            f"data.val.day=[{','.join(arguments.val)}]",
            f"train.seed={seed}",
            f"out={folder / 'run'}",
            *arguments.set,
        ],
    )
    result = train(config, quiet=True)
    task = task_of(config.task)
    trained = load_trained(result.folder)
    test = task.images(config, f"day={','.join(arguments.test)}", trained.classes).data
    metrics = score(trained, test, config.train.batch_size, config.data.workers, torch.device("cpu"))
    return metrics.scores()
