"""Who may import whom, what importing costs, and that every shipped config fits its model."""

import ast
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import timm

import visionlora
from visionlora.config import load_config
from visionlora.data.augmentations import STRENGTHS
from visionlora.sections import DataSection
from visionlora.tasks.base import SetUp
from visionlora.tasks.registry import TASKS, schema_of, task_of
from visionlora.training.run import prepare

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "visionlora"
ROOMS = (
    "adapters",
    "ops",
    "models",
    "data",
    "tasks",
    "training",
    "studies",
    "footage",
    "fleet",
    "exports",
    "demo",
    "cli",
)
COMMON = {
    "errors",
    "files",
    "checksums",
    "tensor_files",
    "stopping",
    "sections",
    "config_errors",
    "plain_yaml",
    "plain_json",
}
"""Modules that lie beside the rooms, below all of them but ``adapters``, whose config is a section; ``config`` lies
above the tasks, whose schemas it reads by."""

ALLOWED = {
    "adapters": {"adapters", "ops", "errors", "files", "checksums", "tensor_files", "plain_json", "version"},
    "ops": {"ops", "errors"},
    "models": {"models", *COMMON},
    "data": {"data", *COMMON},
    "tasks": {"tasks", "adapters", "data", "models", *COMMON},
    "config": {"tasks", *COMMON},
    "training": {"training", "config", "tasks", "adapters", "data", "models", *COMMON},
    "studies": {"studies", "training", "config", "tasks", "adapters", "data", "models", *COMMON},
    "footage": {"footage", "training", "config", "tasks", "adapters", "data", "models", *COMMON},
    "fleet": {"fleet", "training", "config", "tasks", "adapters", "data", "models", *COMMON},
    "exports": {"exports", "fleet", "training", "config", "tasks", "adapters", "data", "models", *COMMON},
    "demo": {*ROOMS, *COMMON, "config", ""},
    "cli": {*ROOMS, *COMMON, "config", ""},
}
"""Room -> the rooms and modules of visionlora that it may import; "" is visionlora itself."""

LIBRARIES = {"adapters": {"torch", "safetensors"}, "ops": {"torch", "triton"}}
"""Rooms that may import only these beside the standard library."""


def imports(file: Path) -> Iterator[str]:
    """Dotted names of every module that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module
            # ``from visionlora.models import timm_models`` names modules as well
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if is_module(name) else node.module for name in names)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


SETTINGS = "visionlora.adapters.config"
"""The one file of a room that the sections of a config stand on."""


def room_of(module: str) -> str:
    """``visionlora.data.images`` -> ``data``; ``visionlora`` -> empty."""
    return module.removeprefix("visionlora").lstrip(".").split(".")[0]


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]


def test_every_room_has_its_rule() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= set(ROOMS), "a new room needs its line in ALLOWED"


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    for file in files_of(room):
        for name in imports(file):
            if name.split(".")[0] == "visionlora":
                assert room_of(name) in ALLOWED[room], f"{file.relative_to(ROOT)} imports {name}"


def module_of(file: Path) -> str:
    """``visionlora/data/images.py`` -> ``visionlora.data.images``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_of(file): set(imports(file)) for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE}
    graph |= {module_of(file): set(imports(file)) for file in PACKAGE.glob("*.py") if file.name != "__init__.py"}
    own = {name: {other for other in others if other in graph and other != name} for name, others in graph.items()}
    list(TopologicalSorter(own).static_order())  # a CycleError names the circle


SIBLINGS = {"classification", "detection", "segmentation"}
"""Folders of ``data`` and of ``tasks``; what two of them need lies above them."""


def test_no_task_imports_anothers_folder() -> None:
    for file in (*files_of("data"), *files_of("tasks")):
        own = SIBLINGS & set(file.relative_to(PACKAGE).parts)
        for name in imports(file):
            other = SIBLINGS & set(name.split(".")) if name.startswith("visionlora.") else set()
            assert not own or other <= own, f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room", LIBRARIES)
def test_the_core_needs_only_torch_and_safetensors(room: str) -> None:
    known = LIBRARIES[room] | {"visionlora"} | sys.stdlib_module_names
    for file in files_of(room):
        for name in imports(file):
            assert name.split(".")[0] in known, f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    "module", ["errors", "files", "checksums", "tensor_files", "plain_yaml", "plain_json", "sections", "config_errors"]
)
def test_what_lies_beside_the_rooms_knows_no_room(module: str) -> None:
    known = {"errors", "plain_yaml", "plain_json", "config_errors", "checksums"}
    for name in imports(PACKAGE / f"{module}.py"):
        assert name.split(".")[0] != "visionlora" or room_of(name) in known or name == SETTINGS, name


def test_contributings_map_is_the_tree() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w*]+\.py", text[text.index("    visionlora/") : text.index("Who may import")]))
    files = {file.name for file in PACKAGE.rglob("*.py")} - {"__init__.py"}
    unnamed = [name for name in files if not any(fnmatch(name, pattern) for pattern in named)]
    known = files | {file.name for file in (ROOT / "scripts").rglob("*.py")}
    gone = [pattern for pattern in named if not any(fnmatch(name, pattern) for name in known)]
    assert (unnamed, gone) == ([], [])


def test_nobody_imports_scripts_and_tests() -> None:
    for file in PACKAGE.rglob("*.py"):
        assert not {"scripts", "tests"} & {name.split(".")[0] for name in imports(file)}, file


def test_libraries_that_import_slowly_are_imported_where_they_are_used() -> None:
    slow = {"matplotlib", "tensorboard", "torchmetrics", "albumentations", "onnx", "onnxruntime", "onnxscript"}
    # What this one file holds runs beside an exported model, without visionlora.
    shipped = PACKAGE / "exports" / "onnx" / "shipped" / "predict.py"
    for file in PACKAGE.rglob("*.py"):
        if file not in (PACKAGE / "data" / "augmentations.py", shipped):
            top = ast.parse(file.read_text(encoding="utf-8")).body
            names = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
            names += [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
            assert not slow & {name.split(".")[0] for name in names}, file


@pytest.mark.parametrize("statement", ["import visionlora; dir(visionlora)", "import visionlora.cli.main"])
def test_importing_loads_nothing_slow(statement: str) -> None:
    slow = "{'torch', 'timm', 'pydantic', 'torchvision', 'albumentations', 'matplotlib', 'numpy'}"
    code = f"import sys; {statement}; found = {slow} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_public_name_resolves() -> None:
    assert visionlora.__all__ == sorted(visionlora.__all__)
    assert set(visionlora.__all__) <= set(dir(visionlora))
    for name in visionlora.__all__:
        assert getattr(visionlora, name).__name__ == name
    with pytest.raises(AttributeError, match="'nothing'"):
        visionlora.nothing  # noqa: B018


def test_the_config_has_the_rooms_own_choices() -> None:
    assert typing.get_args(DataSection.model_fields["augment"].annotation) == STRENGTHS


def test_every_task_has_its_schema() -> None:
    for name in TASKS:
        assert schema_of(name).model_fields["task"].default == name
        assert task_of(name).SCHEMA is schema_of(name)


CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_configs_are_shipped() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_fits_its_model(path: Path) -> None:
    config = load_config(path)
    model = config.model.model_copy(update={"pretrained": False})
    created: Any = task_of(config.task).build(model, ["a", "b", "c"])
    nothing: Any = None
    assert prepare(config, SetUp(created, [], nothing, nothing, nothing, model, "")) is not None
    trainable = [name for name, parameter in created.model.named_parameters() if parameter.requires_grad]
    for target in [config.lora.targets] if isinstance(config.lora.targets, str) else config.lora.targets:
        assert any(".lora_" in name and (target == "all" or f"{target}." in name) for name in trainable), target
    for head in created.head:
        assert any(name.startswith(f"{head}.") for name in trainable), head


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_named_like_its_run_folder_and_has_pretrained_weights(path: Path) -> None:
    config = load_config(path)
    assert config.out == Path("runs") / path.stem
    assert path.stem.startswith(config.task)
    assert timm.list_pretrained(f"{getattr(config.model, 'backbone', None) or config.model.name}.*")
