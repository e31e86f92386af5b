"""Tables and progress on the terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from visionlora.errors import InputError, on_one_line

_FOLDED = 12
"""Characters of a table's first column that are left beside each other at least."""
_ANY = 100_000
"""Characters in a line, where there is no end to them."""


class _Speed(ProgressColumn):
    """How many are done in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, gone when done; call the result with what was done since the last call.

    ``total`` is None where nobody knows it.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    console = Console()
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)


def say(line: object) -> None:
    """Print a line in which names of files and classes may hold anything."""
    print(on_one_line(line))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table; the first column to the left, the others to the right.

    No character is lost: the cells of the first column fold where a terminal is too narrow, and where that is not
    enough the terminal breaks the lines.
    """
    console, cells = Console(), [[on_one_line(cell) for cell in row] for row in rows]
    first = max(cell_len(row[0]) for row in [header, *cells])
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # a plain text would be searched for [markup]
    whole = Measurement.get(console, console.options.update(width=_ANY), table).maximum
    width, least = console.width if console.is_terminal else whole, whole - first + min(first, _FOLDED)
    Console(width=max(width, least)).print(table)


def check_out(out: Path | None) -> None:
    """Before the work begins: the file asked for with ``--out`` can be one.

    Raises:
        InputError: it is a folder, or lies under a file.
    """
    if out is None:
        return
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; give a file")
    for parent in out.parents:
        if parent.exists() and not parent.is_dir():
            raise InputError(f"--out {out}: {parent} is a file")


def check_folder(folder: Path | None, option: str) -> None:
    """Raises InputError unless the folder asked for with an option, such as ``--draw``, is absent or empty."""
    if folder is None:
        return
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{option} {folder}: {path} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{option} {folder}: is not empty; give another folder")
