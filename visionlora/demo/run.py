"""``visionlora demo``: a small base adapted to a generated night camera, and what that brings and costs."""

from dataclasses import dataclass
from pathlib import Path

import torch

from visionlora.adapters.model import disabled, merged
from visionlora.cli.show import print_table, progress
from visionlora.data.classification.folder_labels import read_folder
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.samples import ClassificationDataset
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.images import read_image
from visionlora.demo.base import ARCHITECTURE, INPUT_SIZE, MEAN, STD, base_path
from visionlora.demo.picture import save_picture
from visionlora.demo.scenes import CLASSES, DAY, NIGHT, Camera, write_folder
from visionlora.tasks.classification.config import ClassificationConfig
from visionlora.tasks.classification.inference import classify
from visionlora.tasks.classification.task import TASK
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Trained
from visionlora.tasks.trained import ADAPTER, load_trained
from visionlora.training.run import train

# Folder -> camera, scenes per class, seed. The base was trained on other seeds.
DATA: dict[str, tuple[Camera, int, int]] = {
    "night/train": (NIGHT, 40, 11),
    "night/val": (NIGHT, 10, 12),
    "night/test": (NIGHT, 40, 13),
    "day/test": (DAY, 40, 14),
}
METHODS = {"head": "linear probe", "lora": "LoRA, rank 8", "full": "full fine-tuning"}
# Each method's better one out of two or three, tried on these scenes beforehand.
LEARNING_RATES = {"head": 3e-2, "lora": 6e-3, "full": 3e-3}

INTRODUCTION = """The scenes of this demo are generated, not filmed: a street that a day camera sees
(the small base model was trained on such scenes) and that a night camera sees (dark,
noisy, another angle; 40 labelled frames per class). The base is adapted to the night.
"""


@dataclass(frozen=True)
class Row:
    """One line of the comparison."""

    name: str
    new: float
    old: float
    trainable: int = 0
    megabytes: float = 0.0
    seconds: float = 0.0


def run_demo(out: Path) -> None:
    """Generate the scenes, train three ways, and print what a person wants to see.

    Args:
        out: folder for the scenes, the runs and the picture; an earlier demo there is replaced.
    """
    # So small a model gains nothing from threads, and loses much where another job shares the cores.
    torch.set_num_threads(1)
    print(INTRODUCTION)
    write_scenes(out / "data")
    night, day = read_folder(out / "data/night/test"), read_folder(out / "data/day/test")

    base = base_model()
    rows = [Row("base, as it is", accuracy(base, night), accuracy(base, day))]
    for method, name in METHODS.items():
        print(f"training: {name} ...")
        result = train(settings(out, method), overwrite=True, quiet=True)
        trained = load_trained(result.folder)
        new, old = accuracy(trained, night), accuracy(trained, day)
        rows.append(Row(name, new, old, result.trainable, result.saved_bytes / 1e6, result.seconds))

    print_comparison(rows, len(night), len(day))
    print_identities(out / "lora", night)
    chosen = night.subset(range(0, len(night), len(night) // 12))
    pictures = [read_image(path) for path in chosen.paths]
    before, after = (classify(model, pictures, top=1) for model in (base, load_trained(out / "lora")))
    save_picture(out / "before_and_after.png", chosen, before, after)
    print(f"\npredictions before and after:  {out / 'before_and_after.png'}")
    print(f"the run folder of the adapter: {out / 'lora'}")
    print(f"TensorBoard:                   tensorboard --logdir {out}")
    print(f"classify images with it:       visionlora predict {out / 'lora'} {out / 'data/night/test'}")


def write_scenes(folder: Path) -> None:
    """Generate every part of the data; the same files each time."""
    with progress("generating scenes", len(DATA)) as advance:
        for part, (camera, per_class, seed) in DATA.items():
            write_folder(folder / part, camera, per_class, seed)
            advance(1)


def settings(out: Path, method: str) -> ClassificationConfig:
    """The run of one method; all see the same images equally often."""
    return ClassificationConfig.model_validate(
        {
            "model": {
                "name": ARCHITECTURE,
                "checkpoint": str(base_path()),
                "img_size": INPUT_SIZE[1],
                "mean": MEAN,
                "std": STD,
                "crop_pct": 1.0,
            },
            # A fixed camera: random crops would cut off what is to be seen.
            "data": {"root": str(out / "data/night"), "workers": 0, "augment": "none"},
            "lora": {"rank": 8, "alpha": 16, "targets": "all"},
            "train": {
                "method": method,
                "epochs": 12,
                "batch_size": 16,
                "lr": LEARNING_RATES[method],
                "head_lr": LEARNING_RATES[method],
            },
            "out": str(out / method),
        }
    )


def base_model() -> Trained:
    """The shipped base, in the form in which trained models come."""
    classifier = TASK.build(settings(Path(), "lora").model, CLASSES)
    preprocessing = Preprocessing.from_timm(classifier.data_config)
    classifier.model.eval()
    return Trained("classification", classifier, list(CLASSES), preprocessing, base_path(), {})


def accuracy(trained: Trained, images: LabelledImages) -> float:
    """Top-1."""
    return score(trained, images).scores()["top1"]


def print_comparison(rows: list[Row], n_new: int, n_old: int) -> None:
    """The table; accuracy in percent."""
    print(f"\naccuracy on {n_new} fresh scenes of the new camera (night) and {n_old} of the old one (day):")
    header = ["", "new camera", "old camera", "trained", "MB saved", "seconds"]
    cells = [
        [
            row.name,
            f"{100 * row.new:.1f} %",
            f"{100 * row.old:.1f} %",
            f"{row.trainable:,}" if row.trainable else "",
            f"{row.megabytes:.2f}" if row.trainable else "",
            f"{row.seconds:.0f}" if row.trainable else "",
        ]
        for row in rows
    ]
    print_table(header, cells)


@torch.no_grad()
def print_identities(run: Path, images: LabelledImages) -> None:
    """How far merged weights are from the adapter, and the disabled adapter from the base."""
    trained = load_trained(run / ADAPTER, merged=False)
    dataset = ClassificationDataset(images, eval_transform(trained.preprocessing), seed=0, train=False)
    batch = torch.stack([dataset[0, index]["image"] for index in range(0, len(images), 4)])  # (60, 3, 96, 96)
    adapted = trained.model(batch)
    merged_difference = (merged(trained.model)(batch) - adapted).abs().max()
    with disabled(trained.model):
        base_difference = (trained.model(batch) - base_model().model(batch)).abs().max()
    print(f"largest difference of a logit on {len(batch)} night images:")
    print(f"  merged model - adapted model: {merged_difference:.1e}")
    print(f"  adapter switched off - base:  {base_difference:.1e}")
