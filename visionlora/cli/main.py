"""``visionlora``: the commands and their options; each imports what it needs when it runs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from visionlora.cli import fleet
from visionlora.cli.exit_code import exit_code

app = typer.Typer(
    help="LoRA for vision models: adapt, evaluate, merge.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(fleet.app, name="fleet")

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


@app.command("find-lr")
def find_lr(
    overrides: Overrides = None,
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")] = "",
    draw: Annotated[Path | None, typer.Option(help="Also draw the loss against the rate, as a PNG.")] = None,
) -> None:
    """Propose a learning rate for a run, by 100 steps in which it rises. Leaves no run folder."""
    from visionlora.cli.find_lr import find_lr as run_finder

    run_finder(config, overrides or [], draw)


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
    run: Annotated[
        str,
        typer.Argument(
            help="A run folder, an adapter's .safetensors file, or an exported folder or .onnx file. With --fleet: the "
            "first of the images."
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Images, videos, and folders of images; or a live stream: rtsp://, http://, /dev/video0."),
    ] = None,
    fleet: Annotated[Path | None, typer.Option(help="Take the model of --camera from this fleet's folder.")] = None,
    camera: Annotated[str, typer.Option(help="With --fleet: whose adapter.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write every prediction into a JSON file: a classifier's classes with their probabilities, a "
            "detector's objects as COCO results, a segmenter's share of each class. A name that ends in .jsonl gets "
            "a line for each; of a live stream they are added as they come."
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
    threshold: Annotated[
        list[str] | None, typer.Option(help="Detectors: the same for a class, NAME=0.6; may be repeated.")
    ] = None,
    min_size: Annotated[
        float | None,
        typer.Option(min=0, help="Detectors: keep boxes as large as a square of so many pixels' side, or larger."),
    ] = None,
    track: Annotated[bool, typer.Option("--track", help="Detectors on footage: number objects over time.")] = False,
    zone: Annotated[
        list[str] | None,
        typer.Option(help="Detectors on footage: count in an area, NAME=x,y,x,y,x,y in pixels; may be repeated."),
    ] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(help="Detectors on footage: count who crosses a line, NAME=x,y,x,y; may be repeated."),
    ] = None,
    pieces: Annotated[
        str | None, typer.Option(help="Footage: drawn MP4 files of so long, such as 10min, which streams get anyway.")
    ] = None,
    limit: Annotated[str | None, typer.Option("--for", help="Streams: end after so long, such as 8h.")] = None,
    patience: Annotated[
        str | None, typer.Option(help="Streams: try a lost one again for so long; by default 10min.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take each n-th frame of a video or stream.")] = 1,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    skip_unreadable: Skip = False,
    download: Download = False,
) -> None:
    """Show what a trained model finds in images, videos and live streams.

    A stream ends with Ctrl+C or SIGTERM, and what was found is kept. Exit code 1 if one of several videos could not be
    read, or a stream was lost for good.
    """
    from visionlora.cli.footage import footage_options, read_thresholds
    from visionlora.cli.predict import Outputs, model_and_images
    from visionlora.cli.predict import predict as run_prediction
    from visionlora.tasks.protocols import PredictOptions

    asked: dict[str, object] = {"--draw": draw, "--masks": masks, "--labels": labels, "--top": top}
    asked |= {"--min-score": min_score, "--threshold": threshold, "--min-size": min_size}
    asked |= {"--track": track or None, "--zone": zone, "--line": line}
    model, paths = model_and_images(run, images or [], fleet, camera)
    code = run_prediction(
        model,
        paths,
        Outputs(out, draw, masks, labels, form),
        PredictOptions(top or 3, min_score, read_thresholds(threshold or []), min_size or 0.0),
        footage_options(track, zone or [], line or [], pieces, limit, patience),
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
    with_: Annotated[
        list[Path] | None, typer.Option("--with", help="Of runs that keep the base's classes: another one's, too.")
    ] = None,
    without: Annotated[str, typer.Option(help="Of such: take the one of this name off again.")] = "",
) -> None:
    """Write the adapted model as plain weights, with the base's names."""
    from visionlora.cli.merge import merge as run_merge

    run_merge(run, out, checkpoint, overwrite, download, with_ or [], without)


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
    to: Annotated[str, typer.Option(help="timm, torchvision, onnx or onnx-heads.")],
    out: Annotated[Path, typer.Option(help="An empty or absent folder.")],
    run: Annotated[
        Path | None, typer.Argument(help="A run folder, or an adapter's .safetensors file; none with --fleet.")
    ] = None,
    fleet: Annotated[
        Path | None,
        typer.Option(help="Write all cameras of this fleet's folder into one file instead (--to onnx, classifiers)."),
    ] = None,
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
    from visionlora.cli.export import export_cameras, one_of

    if (source := one_of(run, fleet, to)) is fleet:
        export_cameras(source, out, images or [], checkpoint, download)
        return
    run_export(source, to, out, images or [], checkpoint, rounds, score, by, download)


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
    frames: Annotated[
        Path | None, typer.Option(help="The list of frames, or its folder, of images that were moved away from it.")
    ] = None,
    draw: Annotated[int, typer.Option(min=0, help="Write so many images with their annotations drawn.")] = 0,
    drawings: Annotated[Path, typer.Option(help="An empty or absent folder for the drawings.")] = Path("drawn"),
) -> None:
    """Show what is in a data set and what is wrong with it; exit code 1 if training would refuse it."""
    from visionlora.cli.check_data import check_data as run_check
    from visionlora.data.checks.mask_survey import MaskFiles

    of_masks = classes is not None or masks is not None or suffix or round_masks
    files = MaskFiles(classes, masks, suffix, round_masks) if of_masks else None
    raise typer.Exit(run_check(paths, root, by, out, fix, every, files, draw, drawings, frames))


@app.command()
def frames(
    videos: Annotated[list[Path], typer.Argument(help="Recordings, and folders of them.")],
    out: Annotated[Path, typer.Option(help="An empty or absent folder; or one of recordings' frames, to add to.")],
    every: Annotated[str, typer.Option(help="Take each n-th frame; or, as in 1s, 500ms, 2m, the first of each.")] = "1",
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="A COCO .json whose images have a frame's number, or a file_name like CVAT's frame_000010.png."
        ),
    ] = None,
    camera: Annotated[str, typer.Option(help="Whose recordings they are, if not their folders' or files' names.")] = "",
    start: Annotated[str | None, typer.Option(help="When the recording began, such as 2024-05-31T12:00:00.")] = None,
    near: Annotated[
        int | None,
        typer.Option(min=-1, max=256, help="Drop frames within so many of 256 bits of one before; -1 drops none. [8]"),
    ] = None,
) -> None:
    """Save frames of recordings as images, to label them.

    With --every as a time, a folder, --camera, --start or --near: without near-duplicates, in one folder with a list
    of camera, time and light, which goes on where it was stopped. Else the numbered frames of a video, with the
    annotations that count them; of several, each gets a folder of its name. Exit code 1 if one of them could not be
    read.
    """
    from visionlora.cli.frame_sets import parse_every
    from visionlora.cli.frames import frames as run_extraction

    step = parse_every(every)
    listed = step.period or camera or start is not None or near is not None or any(path.is_dir() for path in videos)
    if not listed:
        raise typer.Exit(run_extraction(videos, out, step.count, annotations))
    from visionlora.cli.frame_sets import collect
    from visionlora.footage.collecting import NEAR

    raise typer.Exit(collect(videos, out, step, NEAR if near is None else near, camera, start, annotations))


@app.command()
def pick(
    images: Annotated[list[Path], typer.Argument(help="Images, and folders of images.")],
    count: Annotated[int, typer.Option(min=1, help="How many to pick.")],
    out: Annotated[Path, typer.Option(help="An empty or absent folder for copies of them.")],
    model: Annotated[str, typer.Option(help="What looks at them: a timm or torchvision name.")] = "",
    config: Annotated[str, typer.Option(help="Instead: the model of a YAML file, or of a shipped config.")] = "",
    checkpoint: Annotated[Path | None, typer.Option(help="The model's weights, if not the hub's.")] = None,
    device: Device = "auto",
    skip_unreadable: Skip = False,
) -> None:
    """Choose the most different images, so that a hundred labels go furthest, and copy them."""
    from visionlora.cli.pick import pick as run_pick

    run_pick(images, count, out, model, config, checkpoint, device, skip_unreadable)


@app.command()
def recalibrate(
    run: Run,
    footage: Annotated[list[Path], typer.Argument(help="Images, videos, and folders of images of the new camera.")],
    out: Annotated[Path, typer.Option(help="The adapter's .safetensors file to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting that names labelled frames of it, such as data.root=PATH; repeated."),
    ] = None,
    part: Annotated[str, typer.Option(help="Which labelled frames: as eval has it.")] = "",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    skip_unreadable: Skip = False,
    download: Download = False,
) -> None:
    """Fit an adapter to a new camera without labels: BatchNorm statistics of its footage, in a new file.

    With labelled frames (--set, --part) their scores before and after are shown, and nothing is written where the first
    of them falls.
    """
    from visionlora.cli.recalibrate import recalibrate as run_recalibration

    raise typer.Exit(
        run_recalibration(run, footage, out, settings or [], part, checkpoint, device, skip_unreadable, download)
    )


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A timm or torchvision name; with --directions a run or adapter.")],
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
    extended: Annotated[
        bool, typer.Option("--extended", help="Count what new classes beside the base's cost, by lora.from.")
    ] = False,
    directions: Annotated[
        bool,
        typer.Option("--directions", help="Of a trained adapter: how much of each update is new to its frozen weight."),
    ] = False,
    checkpoint: Checkpoint = None,
    download: Download = False,
) -> None:
    """Show a model's layers, and what an adapter would cost. Needs no weights, but for --directions."""
    if directions:
        from visionlora.cli.directions import show_directions

        show_directions(Path(model), checkpoint, download)
    else:
        from visionlora.cli.inspect import Asked
        from visionlora.cli.inspect import inspect as run_inspection

        run_inspection(
            model, rank, targets or ["all"], classes, Asked(costs, layers, trial, size, batch, images, extended)
        )


@app.command()
def compare(
    overrides: Overrides = None,
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")] = "",
    methods: Annotated[
        str,
        typer.Option(
            help="frozen, norm, full, scratch, peft, an adapter's method such as lora or dora, with -last-stage for "
            "that alone, and with settings as in lora:init=pissa."
        ),
    ] = "frozen,lora,full",
    ranks: Annotated[str, typer.Option(help="Of the methods that have one; by default the config's.")] = "",
    shots: Annotated[
        str, typer.Option(help="Training images of each class, of annotated images in all: 5,20,all.")
    ] = "all",
    budget: Annotated[str, typer.Option(help="Of every run: 500steps, or training time such as 10min.")] = "500steps",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method with each number of labels.")] = 3,
    evaluations: Annotated[
        int, typer.Option(min=1, help="About so many in each run; the last gives the score, the others the curve.")
    ] = 10,
    rates: Annotated[
        str, typer.Option(help="apart searches the head's learning rate and the other; together keeps their ratio.")
    ] = "apart",
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs to train side by side, each on a GPU of its own if there are as many.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="The study's folder, empty or absent.")] = Path("runs/compare"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in the folder.")] = False,
) -> None:
    """Train methods at an equal budget on one's own data, and say which to choose."""
    from visionlora.cli.compare import compare as run_comparison

    run_comparison(config, overrides or [], methods, ranks, shots, budget, seeds, evaluations, rates, jobs, out, resume)


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
