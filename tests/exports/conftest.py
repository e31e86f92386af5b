"""Tiny adapters and their exports, each made once for all processes that test. Not to be changed."""

import fcntl
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import visionlora as vl
from helpers.tiny_models import MODELS, make_adapter, write_image
from visionlora.exports.result import Exported


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, the same in each of pytest-xdist's processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exports"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Other processes wait for the end of the block."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def adapter(shared: Path) -> Callable[[str], Path]:
    """``adapter("fcos")`` is the file of one of ``MODELS``."""

    def make(name: str) -> Path:
        folder = shared / name
        with alone(folder):
            if not (folder / "adapter.safetensors").is_file():
                make_adapter(folder, MODELS[name])
        return folder / "adapter.safetensors"

    return make


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four pictures of several shapes."""
    root = tmp_path_factory.mktemp("images")
    for index, size in enumerate([(120, 80), (64, 100), (96, 96), (48, 33)]):
        write_image(root / f"{index}.png", index, size)
    return root


@pytest.fixture(scope="session")
def exported(shared: Path, adapter: Callable[[str], Path], images: Path) -> Callable[[str, str], Exported]:
    """``exported("fcos", "onnx")`` is what the export of one of ``MODELS`` came to."""

    def make(name: str, to: str) -> Exported:
        out = shared / f"{name}_{to}"
        result = out.with_name(f"{out.name}.pickle")
        with alone(out):
            if not result.is_file():
                result.write_bytes(pickle.dumps(vl.export(adapter(name), to, out, images=[images], rounds=1)))
        found: Exported = pickle.loads(result.read_bytes())
        return found

    return make
