"""``visionlora inspect``."""

from collections import defaultdict
from dataclasses import dataclass, replace

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.model import attach
from visionlora.adapters.paths import numbered
from visionlora.adapters.patterns import is_under
from visionlora.adapters.report import collapse, table
from visionlora.models.classifier import create_classifier
from visionlora.studies.costs import METHODS, Cost, costs_of, prepared, time_steps
from visionlora.studies.plan import parse_seconds

MIB = 2**20
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Asked:
    """What else to show: costs of each method, of each layer, and of steps that are timed for so long, as text; and of
    a base that answers beside the adapted model, by where the adapter begins.
    """

    costs: bool
    layers: bool
    trial: str
    size: int | None
    batch: int
    images: int
    extended: bool = False


def inspect(name: str, rank: int, targets: list[str], classes: int, asked: Asked) -> None:
    """Print the report of an adapter that is attached and thrown away, and what training would cost."""
    config = LoRAConfig(rank=rank, targets=targets)  # checked before the model is built
    seconds = parse_seconds(asked.trial, "--trial") if asked.trial else 0.0
    size = None if asked.size is None else (asked.size, asked.size)
    classifier = create_classifier(name, classes, pretrained=False, img_size=size)
    report = attach(classifier.model, replace(config, unfreeze=classifier.head))
    _, height, width = classifier.data_config["input_size"]
    settings = classifier.data_config
    whole = f"{report.total:,} parameters ({report.total * 4 / 1e6:.1f} MB in float32)"
    print(f"{name}: {whole}, images of {height} x {width}")
    print(f"mean {tuple(settings['mean'])}, std {tuple(settings['std'])}, {settings['interpolation']}\n")
    print(report)
    if asked.costs or asked.layers or asked.trial:
        _show_costs(name, config, classes, asked, seconds)
    if asked.extended:
        _show_extended(name, classes, asked.size)


def _show_extended(name: str, classes: int, size: int | None) -> None:
    """What lies below the adapter is computed once, what lies above it twice."""
    costs = costs_of(name, LoRAConfig(rank=1), classes, size)["frozen"]
    done = {path: layer.operations for path, layer in costs.layers.items()}
    order = list(done)
    total = sum(done.values())
    rows, stages = [], dict.fromkeys(f"{at[0]}{at[1]}" for path in order if (at := numbered(path)))
    for stage in stages:
        first = next(index for index, path in enumerate(order) if is_under(path, [stage]))
        twice = sum(done[path] for path in order[first:])
        rows.append((f"lora.from={stage}", f"{(total + twice) / 1e9:.3f}", f"{(total + twice) / total:.2f}"))
    print(f"\none image, with new classes beside the base's (train.keep_classes=true; base {total / 1e9:.3f} GFLOP):")
    print(table(("", "GFLOP forward", "of the base's"), rows))


def _show_costs(name: str, config: LoRAConfig, classes: int, asked: Asked, seconds: float) -> None:
    costs = costs_of(name, config, classes, asked.size)
    label = {"lora": f"LoRA, rank {config.rank}", "frozen": "frozen, new head", "full": "full fine-tuning"}
    rows = [
        (
            label[method],
            f"{cost.trainable:,}",
            f"{cost.file_bytes / 1e6:.2f}",
            f"{cost.forward / 1e9:.2f}",
            f"{cost.backward / 1e9:.2f}",
            f"{cost.image_bytes / MIB:.1f}",
        )
        for method, cost in costs.items()
    ]
    header = ("", "parameters", "MB to save", "GFLOP forward", "GFLOP backward", "MiB kept")
    print(f"\nof one image, random weights:\n{table(header, rows)}")
    memory = [(f"{batch}", *(f"{costs[m].memory(batch) / MIB:.0f}" for m in METHODS)) for batch in BATCHES]
    print("\nMiB of a step (model, gradients, AdamW, what is kept; workspaces come on top):")
    print(table(("batch", *(label[method] for method in METHODS)), memory))
    if asked.layers:
        print(f"\nby layer; MFLOP of the forward, and MiB kept for the backward, of one image:\n{_by_layer(costs)}")
    if seconds:
        steps = {
            m: time_steps(prepared(m, name, config, classes, asked.size)[0], asked.batch, seconds) for m in METHODS
        }
        _show_times(steps, asked, label)


def _by_layer(costs: dict[str, Cost]) -> str:
    """Layers of one kind in a row: parameters, and for each method those that train, MFLOP, and MiB kept."""
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: {method: [0.0, 0.0, 0.0] for method in costs})
    sizes: dict[str, int] = defaultdict(int)
    for method, cost in costs.items():
        for path, layer in cost.layers.items():
            name = collapse(path) or "(between the layers)"
            sums = rows[name][method]
            for index, value in enumerate((layer.trainable, layer.operations / 1e6, layer.bytes_kept / MIB)):
                sums[index] += value
            sizes[name] += layer.parameters if method == "full" else 0
    header = ["layer", "parameters"]
    header += [f"{what}, {method}" for method in costs for what in ("train", "MFLOP", "MiB")]
    lines = [
        (name, f"{sizes[name]:,}", *(cell for m in costs for cell in _cells(values[m])))
        for name, values in rows.items()
    ]
    return table(header, lines)


def _cells(values: list[float]) -> tuple[str, str, str]:
    trainable, operations, kept = values
    return f"{int(trainable):,}", f"{operations:.1f}", f"{kept:.2f}"


def _show_times(seconds: dict[str, float], asked: Asked, label: dict[str, str]) -> None:
    rows = [
        (label[method], f"{1e3 * value:.0f}", f"{value / asked.batch * asked.images / 60:.2f}")
        for method, value in seconds.items()
    ]
    print(f"\nsteps with {asked.batch} images of noise, reading and evaluating left out:")
    print(table(("", "ms", f"minutes for {asked.images:,} images"), rows))
