"""``visionlora``: the commands and their options; each imports what it needs when it runs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from visionlora.cli.exit_code import exit_code

app = typer.Typer(
    help="LoRA for vision models: adapt, evaluate, merge.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Run = Annotated[Path, typer.Argument(help="A run folder, or an adapter's .safetensors file.")]
RunOrExported = Annotated[
    Path, typer.Argument(help="A run folder, an adapter's .safetensors file, or an exported folder or .onnx file.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings such as data.root=PATH train.epochs=5.")]
Checkpoint = Annotated[Path | None, typer.Option(help="The base's weights, if they have moved.")]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the base from its hub for a file that lies in no run folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Skip = Annotated[bool, typer.Option("--skip-unreadable", help="Leave unreadable images out, and name them.")]


@app.command()
def train(
    overrides: Overrides = None,
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on exactly where the run was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Adapt a model to a data set and leave a run folder."""
    from visionlora.cli.train import train as run_training

    raise typer.Exit(run_training(config, overrides or [], resume, overwrite))


@app.command("eval")
def evaluate(
    run: RunOrExported,
    overrides: Overrides = None,
    part: Annotated[
        str,
        typer.Option(
            help="What to score: a folder, or a value of the column split; of annotated images a part, all, or "
            "FIELD=VALUE,VALUE."
        ),
    ] = "",
    base: Annotated[bool, typer.Option("--base", help="Score the base without the adapter.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the scores as JSON.")] = None,
    retain: Annotated[
        Path | None,
        typer.Option(
            help="Classifiers: also score what the base knew with more and more of the adapter, on class folders of "
            "the base's own classes, or by agreement with the base on any images."
        ),
    ] = None,
    retain_at_least: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Write the adapter with the most of it that keeps this share of that score."),
    ] = None,
    retain_out: Annotated[
        Path | None, typer.Option(help="An empty or absent folder for the curve, as PNG and JSON, and that adapter.")
    ] = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    skip_unreadable: Skip = False,
    download: Download = False,
) -> None:
    """Score a trained model on labelled images: its run's validation, or others (data.root=PATH)."""
    from visionlora.cli.evaluate import evaluate as run_evaluation
    from visionlora.cli.forgetting import check_retain

    asked = check_retain(retain, retain_at_least, retain_out, base)
    run_evaluation(run, overrides or [], part, base, out, checkpoint, device, skip_unreadable, download, asked)


@app.command()
def predict(
    run: RunOrExported,
    images: Annotated[list[Path], typer.Argument(help="Images, videos, and folders of images.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write every prediction into a JSON file: a classifier's classes with their probabilities, a "
            "detector's objects as COCO results, a segmenter's share of each class. A name that ends in .jsonl gets "
            "a line for each."
        ),
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Detectors and segmenters: a new folder for drawings of what was found.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Segmenters: a new folder for the masks, as PNG.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Detectors: a new folder for the images with what was found as their labels, to correct."),
    ] = None,
    form: Annotated[
        Literal["coco", "yolo"], typer.Option("--format", help="Of --labels; yolo has boxes without masks.")
    ] = "coco",
    top: Annotated[int | None, typer.Option(min=1, help="Classifiers: how many classes to show; by default 3.")] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Detectors: the least score to keep; by default what the run suggests."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take each n-th frame of a video.")] = 1,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    skip_unreadable: Skip = False,
    download: Download = False,
) -> None:
    """Show what a trained model finds in images and videos.

    Exit code 1 if one of several videos could not be read.
    """
    from visionlora.cli.predict import Outputs
    from visionlora.cli.predict import predict as run_prediction
    from visionlora.tasks.base import PredictOptions

    asked = {"--draw": draw, "--masks": masks, "--labels": labels, "--top": top, "--min-score": min_score}
    code = run_prediction(
        run,
        images,
        Outputs(out, draw, masks, labels, form),
        PredictOptions(top or 3, min_score),
        [name for name, value in asked.items() if value is not None],
        every,
        checkpoint,
        device,
        skip_unreadable,
        download,
    )
    raise typer.Exit(code)


@app.command()
def merge(
    run: Run,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    checkpoint: Checkpoint = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")] = False,
    download: Download = False,
) -> None:
    """Write the adapted model as plain weights, with the base's names."""
    from visionlora.cli.merge import merge as run_merge

    run_merge(run, out, checkpoint, overwrite, download)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A folder of PEFT's; or a run folder, or an adapter's .safetensors.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write; for PEFT an empty or absent folder.")],
    model: Annotated[str, typer.Option(help="From PEFT: the timm or torchvision name of the base.")] = "",
    classes: Annotated[
        int | None, typer.Option(min=1, help="From PEFT: outputs of the base, if not in the file.")
    ] = None,
    checkpoint: Checkpoint = None,
    download: Download = False,
) -> None:
    """Turn a folder of PEFT's into an adapter's file, or what a run trained into a folder of PEFT's."""
    from visionlora.cli.convert import convert as run_conversion

    run_conversion(source, out, model, classes, checkpoint, download)


@app.command()
def export(
    run: Run,
    to: Annotated[str, typer.Option(help="timm, torchvision, onnx or onnx-heads.")],
    out: Annotated[Path, typer.Option(help="An empty or absent folder.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="An image or a folder of images to check with, not the run's own; may be repeated."),
    ] = None,
    checkpoint: Checkpoint = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often the models are timed.")] = 10,
    score: Annotated[
        bool, typer.Option(help="Score the exported model on all of the run's validation images, too.")
    ] = True,
    by: Annotated[
        str | None,
        typer.Option(help="Also score in groups by this field of the images; by default by camera, if they have it."),
    ] = None,
    download: Download = False,
) -> None:
    """Write the merged model as a folder for others, checked against the adapted one, with a model card."""
    from visionlora.cli.export import export as run_export

    run_export(run, to, out, images or [], checkpoint, rounds, score, by, download)


@app.command("check-data")
def check_data(
    paths: Annotated[
        list[Path],
        typer.Argument(help="A COCO .json, a YOLO data.yaml, or a folder; several are parts of one data set."),
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the images, if not the layout's own.")] = None,
    by: Annotated[str | None, typer.Option(help="A field of the images that makes the parts: day, camera ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the report as JSON.")] = None,
    fix: Annotated[Path | None, typer.Option(help="An empty or absent folder for a mended COCO copy.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every fault, not three of each kind.")] = False,
    classes: Annotated[
        Path | None, typer.Option(help="Mask files: the file that names their classes, if it isn't with them.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="The folder of the masks, if the layout is none of the known ones.")
    ] = None,
    suffix: Annotated[
        str, typer.Option(help="What a mask's name has between its image's name and the ending, such as _mask.")
    ] = "",
    round_masks: Annotated[
        bool, typer.Option("--round-masks", help="Masks with smoothed edges, or JPEG: take the nearest class.")
    ] = False,
    draw: Annotated[int, typer.Option(min=0, help="Write so many images with their annotations drawn.")] = 0,
    drawings: Annotated[Path, typer.Option(help="An empty or absent folder for the drawings.")] = Path("drawn"),
) -> None:
    """Show what is in a data set and what is wrong with it; exit code 1 if training would refuse it."""
    from visionlora.cli.check_data import check_data as run_check
    from visionlora.data.checks.mask_survey import MaskFiles

    of_masks = classes is not None or masks is not None or suffix or round_masks
    files = MaskFiles(classes, masks, suffix, round_masks) if of_masks else None
    raise typer.Exit(run_check(paths, root, by, out, fix, every, files, draw, drawings))


@app.command()
def frames(
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    out: Annotated[Path, typer.Option(help="An empty or absent folder.")],
    every: Annotated[int, typer.Option(min=1, help="Take each n-th frame.")] = 1,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="A COCO .json whose images have a frame's number, or a file_name like CVAT's frame_000010.png."
        ),
    ] = None,
) -> None:
    """Save the frames of videos as images, to label them, or of one with the annotations that count them.

    Of several, each gets a folder of its name. Exit code 1 if one of them could not be read.
    """
    from visionlora.cli.frames import frames as run_extraction

    raise typer.Exit(run_extraction(videos, out, every, annotations))


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A timm or torchvision name.")],
    rank: Annotated[int, typer.Option(help="The adapter's rank.")] = 8,
    targets: Annotated[list[str] | None, typer.Option(help="Names, patterns or a preset; may be repeated.")] = None,
    classes: Annotated[int, typer.Option(min=1, help="Outputs of the new head.")] = 10,
    costs: Annotated[
        bool, typer.Option("--costs", help="Count operations and memory: LoRA, frozen, full fine-tuning.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="The same for each kind of layer.")] = False,
    trial: Annotated[str, typer.Option(help="Also time steps for so long with each method, such as 20s.")] = "",
    size: Annotated[int | None, typer.Option(min=1, help="Pixels of an image's side; by default the model's.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Images in a timed step.")] = 16,
    images: Annotated[int, typer.Option(min=1, help="Of an epoch whose minutes are shown.")] = 1000,
) -> None:
    """Show a model's layers, and what an adapter would cost. Needs no weights."""
    from visionlora.cli.inspect import Asked
    from visionlora.cli.inspect import inspect as run_inspection

    run_inspection(model, rank, targets or ["all"], classes, Asked(costs, layers, trial, size, batch, images))


@app.command()
def compare(
    overrides: Overrides = None,
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")] = "",
    methods: Annotated[
        str,
        typer.Option(
            help="frozen, norm, full, scratch, an adapter's method such as lora or dora, with -last-stage for that "
            "alone, and with settings as in lora:init=pissa."
        ),
    ] = "frozen,lora,full",
    ranks: Annotated[str, typer.Option(help="Of the methods that have one; by default the config's.")] = "",
    shots: Annotated[
        str, typer.Option(help="Training images of each class, of annotated images in all: 5,20,all.")
    ] = "all",
    budget: Annotated[str, typer.Option(help="Of every run: 500steps, or training time such as 10min.")] = "500steps",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method with each number of labels.")] = 3,
    out: Annotated[Path, typer.Option(help="The study's folder, empty or absent.")] = Path("runs/compare"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in the folder.")] = False,
) -> None:
    """Train methods at an equal budget on one's own data, and say which to choose."""
    from visionlora.cli.compare import compare as run_comparison

    run_comparison(config, overrides or [], methods, ranks, shots, budget, seeds, out, resume)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the runs and the picture go.")] = Path("runs/demo"),
) -> None:
    """Adapt a small model to a generated night camera, and compare. Needs no download."""
    from visionlora.demo.run import run_demo

    run_demo(out)


def main() -> None:
    """Run the command line; see ``exit_code``."""
    sys.exit(exit_code(lambda: app(prog_name="visionlora")))


if __name__ == "__main__":
    main()
