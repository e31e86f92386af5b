"""How a command ends: one line for what can't be done, and a shell's exit codes."""

import sys
from collections.abc import Callable
from contextlib import suppress

from visionlora.errors import InputError, on_one_line
from visionlora.stopping import Interrupted, Lost, SaidElsewhere, Stopped, stopping_raises


def exit_code(command: Callable[[], object]) -> int:
    """Run a command: 0, 2 after bad input (one line on stderr), 128 + the number of the signal that stopped it, or 75
    where another process of a run was lost.
    """
    try:
        with stopping_raises():
            command()
    except (InputError, OSError) as error:  # an OSError is a full disk, a missing right ...; it names the file
        print(f"error: {on_one_line(error)}", file=sys.stderr)
        return 2
    except SaidElsewhere as end:
        return end.exit_code
    except (Interrupted, Stopped, Lost) as stop:
        with suppress(OSError):  # the terminal may be gone
            print(on_one_line(stop), file=sys.stderr)
        return stop.exit_code
    return 0
