"""``visionlora fleet``: a folder of cameras' adapters, with their versions."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Keep the adapters of many cameras in one folder, with their versions.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(help="The fleet's folder.")]
Camera = Annotated[str, typer.Argument(help="A camera's name.")]
Note = Annotated[str, typer.Option(help="A line for the audit.")]


@app.command("list")
def list_cameras(folder: Folder) -> None:
    """Show every camera's current version."""
    from visionlora.cli.show import print_table
    from visionlora.fleet.index import read_index

    rows = []
    for camera, entry in read_index(folder).cameras.items():
        version = entry.version()
        of = f"{version.number} of {len(entry.versions)}"
        rows.append([camera, of, _classes(version.classes), _scores(version.scores), version.added[:10]])
    print_table(["camera", "version", "classes", "score", "added"], rows)


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(help="The fleet's folder; absent, empty, or a fleet's.")],
    camera: Camera,
    run: Annotated[Path, typer.Argument(help="A run folder, or an adapter's .safetensors file.")],
    note: Note = "",
) -> None:
    """Add an adapter as the camera's current version."""
    from visionlora.cli.show import say
    from visionlora.fleet.registry import add as run_add

    version = run_add(folder, camera, run, note)
    say(f"{camera}: version {version.number}, {version.bytes / 1e6:.1f} MB, sha256 {version.sha256}")


@app.command()
def show(
    folder: Folder,
    camera: Annotated[str | None, typer.Argument(help="A camera's name; without, every change of the fleet.")] = None,
) -> None:
    """Show a camera's versions, and who changed what when."""
    from visionlora.cli.show import print_table, say
    from visionlora.fleet.index import read_index

    index = read_index(folder)
    if camera is not None:
        entry = index.entry(camera, folder)
        rows = []
        for version in entry.versions:
            facts = [_classes(version.classes), _scores(version.scores), version.added[:10], version.note]
            rows.append([str(version.number), *facts])
        print_table(["version", "classes", "score", "added", "note"], rows)
        say(f"version {entry.current} is the current one")
        for version in entry.versions:
            say(f"version {version.number}: {folder / version.file(camera)}, sha256 {version.sha256}")
    for change in index.audit:
        if camera in (None, change.camera):
            came = f"{change.before or 'nothing'} -> {change.version}"
            note = f"  {change.note}" if change.note else ""
            say(f"{change.when}  {change.who}  {change.what} {change.camera}: {came}{note}")


@app.command()
def compare(
    folder: Folder,
    camera: Camera,
    one: Annotated[int | None, typer.Argument(help="A version; by default the one before the other.")] = None,
    other: Annotated[int | None, typer.Argument(help="Another; by default the current one.")] = None,
) -> None:
    """Show what two versions of a camera differ in: scores as their runs had them, classes, data, settings."""
    from visionlora.cli.show import print_table
    from visionlora.errors import InputError
    from visionlora.fleet.index import read_index

    entry = read_index(folder).entry(camera, folder)
    second = entry.version(other)
    if one is None and second.number == 1:
        raise InputError(f"'{camera}' has no version before {second.number}; name two")
    first = entry.version(second.number - 1 if one is None else one)
    facts = [_facts(version.model_dump(mode="json")) for version in (first, second)]
    names = [name for name in {**facts[0], **facts[1]} if facts[0].get(name) != facts[1].get(name)]
    rows = [[name, *(_shown(fact.get(name)) for fact in facts)] for name in names]
    print_table(["", f"version {first.number}", f"version {second.number}"], rows)


@app.command()
def rollback(
    folder: Folder,
    camera: Camera,
    to: Annotated[int | None, typer.Option(min=1, help="The version; by default the one before.")] = None,
    note: Note = "",
) -> None:
    """Make an earlier (or later) version the camera's current one; none is deleted."""
    from visionlora.cli.show import say
    from visionlora.fleet.registry import rollback as run_rollback

    say(f"{camera}: version {run_rollback(folder, camera, to, note).number} is the current one")


@app.command()
def check(folder: Folder) -> None:
    """Read every version's file; exit code 1 if one is missing, damaged or another."""
    from visionlora.cli.show import say
    from visionlora.fleet.index import read_index
    from visionlora.fleet.registry import check as run_check
    from visionlora.fleet.registry import unnamed_files

    faults = run_check(folder)
    for fault in faults:
        say(fault)
    for path in unnamed_files(folder):
        say(f"{path}: no version names it; it can be deleted")
    versions = [version for entry in read_index(folder).cameras.values() for version in entry.versions]
    say(f"{len(versions)} versions, {len(faults)} faults")
    raise typer.Exit(int(bool(faults)))


def _classes(classes: list[str] | None) -> str:
    return "" if classes is None else str(len(classes))


def _scores(scores: dict[str, float]) -> str:
    """The first, by which a run's best epoch is chosen."""
    return next((f"{name} {value:.4f}" for name, value in scores.items()), "")


def _facts(version: dict[str, Any]) -> dict[str, Any]:
    """A version's values, those of its scores and data one by one."""
    flat = {name: value for name, value in version.items() if name not in ("scores", "data", "number")}
    for group in ("scores", "data"):
        flat |= {f"{group}.{name}": value for name, value in version[group].items()}
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
