"""What every test may ask for."""

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# What holds to the last bit holds on a CPU, whether the machine has a GPU or not; its own tests ask for it.
if not os.environ.get("VISIONLORA_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Tiny tensors gain nothing from threads, and lose much where another job shares the cores.
torch.set_num_threads(int(os.environ.get("VISIONLORA_TEST_THREADS", "1")))

# Autograd starts a thread for each device that there is at its first use, and no fork may train after that. torch's
# exporter brings a device of its own, so this use comes before any.
torch.zeros(1, requires_grad=True).sum().backward()


# Who starts the suite by nohup has this signal ignored, and so would all that the suite starts.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-in", type=int, default=1, metavar="N", help="of each test's cases the first and each N-th")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Other versions of what is installed fail by what a test calls, and hardly by the case that it is called with."""
    seen: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        (left_out if seen[test] % config.getoption("--one-in") else kept).append(item)
        seen[test] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_collection_finish() -> None:
    """What was imported and collected stays, so that the garbage collector need not go through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Nobody looks at the pictures of a module's classifiers, which would take half of the time of their runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("visionlora.tasks.classification.task.Classification.figures", lambda *_given: {})
        yield


@pytest.fixture(scope="session")
def kit() -> Path:
    """The folder with pretrained weights and real data, which is no part of the project."""
    path = Path(os.environ.get("VISIONLORA_KIT", Path(__file__).parents[2] / "shared" / "kit"))
    if not path.is_dir():
        pytest.skip(f"the kit of real weights and data is not at {path} (set VISIONLORA_KIT)")
    return path
