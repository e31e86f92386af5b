"""The part of the model card that says how well the model does."""

from typing import Any

from visionlora.exports.scores import Scores
from visionlora.exports.source import Source


def metrics(source: Source, scored: Scores | None) -> str:
    """Scores overall, per class and per camera, as Markdown; empty if nobody knows them."""
    report = source.report or {}
    reported: dict[str, float] = report.get("scores") or source.trained.about.get("scores", {})
    parts = []
    if scored:
        whose = "the run's report" if scored.whose == "the run's report" else "the adapted model now"
        rows = [[name, f"{value:.4f}", f"{scored.against[name]:.4f}"] for name, value in scored.exported.items()]
        parts.append(table(["score", "this model", whose], rows))
    elif reported:
        parts.append(table(["score", "value"], [[name, f"{value:.4f}"] for name, value in reported.items()]))
    else:
        return ""
    if per_class := report.get("per_class"):
        parts.append(_rows("class", per_class))
    if scored and scored.groups:
        counted = {name: {"images": images, **scores} for name, (images, scores) in scored.groups.items()}
        parts.append(_rows(scored.by, counted))
    images = f"{scored.images} " if scored else ""
    return "\n\n".join(
        [
            "## Metrics",
            f"On the run's {images}validation images, of which the best epoch was chosen.",
            *parts,
        ]
    )


def table(header: list[str], rows: list[list[Any]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _rows(what: str, values: dict[str, dict[str, float]]) -> str:
    columns = list(dict.fromkeys(name for scores in values.values() for name in scores))
    rows = [[name, *(_text(scores.get(column)) for column in columns)] for name, scores in values.items()]
    return table([what, *columns], rows)


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
