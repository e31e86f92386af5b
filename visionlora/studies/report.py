"""What a comparison leaves behind: results as JSON and CSV, report.md, pictures, TensorBoard's table."""

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlora.errors import on_one_line
from visionlora.files import new_folder, write_atomic, write_json
from visionlora.studies.choosing import advice, caveats, choose
from visionlora.studies.comparison import Comparison
from visionlora.studies.forecast import forecasts
from visionlora.studies.pictures import pictures
from visionlora.studies.plan import shots_word
from visionlora.studies.table import Row, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT, FIGURES, EVENTS = "report.md", "figures", "tensorboard"


def write_report(found: Comparison) -> list[Row]:
    """Write everything into the study's folder, in the place of what an earlier call wrote; the rows of the table."""
    folder, rows = found.plan.config.out, rows_of(found)
    plain = [_plain(row) for row in rows]
    runs = [_plain_run(run) for run in found.runs]
    rates = {
        label: [
            {**tried._asdict(), "score": quality and quality[0], "loss": quality and -quality[1]}
            for tried, quality in rate.tried.items()
        ]
        for label, rate in found.rates.items()
    }
    write_json(
        folder / "results.json",
        {
            "score": found.score,
            "tested": found.tested,
            "budget": str(found.plan.budget),
            "rows": plain,
            "runs": runs,
            "learning_rates": rates,
        },
    )
    _write_csv(folder / "results.csv", plain)
    _write_csv(folder / "runs.csv", [{k: v for k, v in run.items() if k not in ("curve", "per_class")} for run in runs])
    figures = pictures(rows, found)
    for name, figure in figures.items():
        _save(figure, folder / FIGURES / f"{name}.png")
    write_atomic(folder / REPORT, lambda path: path.write_text(_markdown(rows, found, list(figures)), encoding="utf-8"))
    _write_events(folder / EVENTS, found)
    return rows


HEADER = (
    *("method", "labels", "score", "parameters", "kept, MiB", "peak, MiB", "step, ms"),
    *("s to frozen", "s to 95%", "file, MB", "learning rate", "head's"),
)


def cells(row: Row) -> list[str]:
    """A row of the table, as text; what is not known is a dash."""
    score = "-" if row.score is None else f"{row.score:.4f}" + (f" ± {row.spread:.4f}" if row.seeds > 1 else "")
    return [
        row.variant.label,
        f"{row.images}" if row.shots is None or not row.of_each_class else shots_word(row.shots),
        score,
        f"{row.trainable:,}",
        f"{row.bytes_kept / 2**20:.1f}",
        f"{row.peak_bytes / 2**20:.0f}" if row.peak_bytes else "-",
        f"{1e3 * row.step_seconds:.0f}" if row.step_seconds else "-",
        "-" if row.to_frozen is None else f"{row.to_frozen:.1f}",
        "-" if row.to_nearly is None else f"{row.to_nearly:.1f}",
        f"{row.file_bytes / 1e6:.2f}" if row.file_bytes else "-",
        "-" if row.variant.one_rate else f"{row.rates.lr:.2g}",
        f"{row.rates.head_lr:.2g}" + (" (edge)" if row.at_edge else ""),
    ]


def _markdown(rows: Sequence[Row], found: Comparison, figures: Sequence[str]) -> str:
    plan = found.plan
    table = ["| " + " | ".join(line) + " |" for line in (HEADER, ["---"] * len(HEADER), *map(cells, rows))]
    seeds = f"{plan.seeds} seeds" if plan.seeds > 1 else "1 seed"
    parts = [
        f"# {on_one_line(plan.config.model.name)}: {len(plan.variants)} methods compared",
        advice(rows, found),
        f"{plan.budget} for each run, {seeds}; {found.score} is the mean, ± the standard deviation over the seeds. "
        "`kept` is what a batch keeps from its forward for the backward, `peak` the most memory of the whole process, "
        "`s to frozen` and `s to 95%` the seconds of training until an evaluation shows the frozen backbone's score, "
        "and 95% of the best method's.",
        "\n".join(table),
        *_more_labels(rows, found),
        "## Before you rely on it",
        "\n".join(f"- {line}" for line in caveats(rows, found)),
        "## Pictures",
        "\n\n".join(f"![{name.replace('_', ' ')}]({FIGURES}/{name}.png)" for name in figures),
    ]
    return "\n\n".join(parts) + "\n"


def _more_labels(rows: Sequence[Row], found: Comparison) -> list[str]:
    """What more labels would bring the method that is to be chosen; nothing with fewer than three numbers of them."""
    chosen = choose(rows, found)
    whole, by_class = forecasts(found, chosen.variant) if chosen is not None else ([], {})
    if chosen is None or not whole:
        return []
    lines = ["| training images | expected | 80% interval |", "| --- | --- | --- |"]
    lines += [f"| {one.images} | {one.score:.4f} | {one.low:.4f} to {one.high:.4f} |" for one in whole]
    of_class = ["| class | expected | 80% interval |", "| --- | --- | --- |"]
    of_class += [
        f"| {on_one_line(name)} | {one.score:.4f} | {one.low:.4f} to {one.high:.4f} |" for name, one in by_class.items()
    ]
    return [
        "## More labels",
        f"{found.score} of one run of {chosen.variant.label} with 1.5, 2 and 4 times the images, by a power law "
        "through the numbers of labels above; where the law does not hold, neither does the interval:",
        "\n".join(lines),
        "F1, AP or IoU of each class with twice the images:",
        "\n".join(of_class),
    ]


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(row)
    del values["variant"], values["scores"], values["rates"]  # scores are the runs'
    return {"method": row.variant.word, "rank": row.variant.rank, **values, **row.rates._asdict()}


def _plain_run(run: Any) -> dict[str, Any]:
    cell = run.cell
    which = {"method": cell.variant.word, "rank": cell.variant.rank, "shots": cell.shots, "seed": cell.seed}
    trained = {"images": run.images, "epochs": run.epochs, "steps": run.steps, **run.rates._asdict()}
    return {**which, "run": cell.name, **trained, **asdict(run.outcome)}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def _save(figure: "Figure", path: Path) -> None:
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def _write_events(folder: Path, found: Comparison) -> None:
    """A line for each run in TensorBoard's table of hyperparameters."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    shutil.rmtree(folder, ignore_errors=True)
    with new_folder(folder) as temporary:
        for run in found.runs:
            variant, outcome = run.cell.variant, run.outcome
            settings = {
                "method": variant.word,
                "rank": variant.rank or 0,
                "labels": shots_word(run.cell.shots),
                "seed": run.cell.seed,
                **run.rates._asdict(),
            }
            scores = {
                f"study/{found.score}": outcome.score if outcome.score is not None else float("nan"),
                "study/parameters": float(outcome.trainable),
                "study/step_seconds": outcome.step_seconds,
                "study/file_bytes": float(outcome.file_bytes),
            }
            with SummaryWriter(str(temporary / run.cell.name)) as writer:
                for summary in hparams(settings, scores):
                    writer.file_writer.add_summary(summary)
                for tag, value in scores.items():
                    writer.add_scalar(tag, value)
