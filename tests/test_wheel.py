"""The built package works on its own, with its configs and the demo's base inside."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

CHECK = """
from pathlib import Path
import visionlora
from visionlora.cli.configs import find_config, shipped_configs
from visionlora.config import load_config
from visionlora.demo.base import base_path

site = Path(SITE).resolve()
assert Path(visionlora.__file__).resolve().is_relative_to(site), visionlora.__file__
config = find_config("classification_vit_tiny")
assert config.resolve().is_relative_to(site), config
assert load_config(config).model.name == "vit_tiny_patch16_224"
assert base_path().resolve().is_relative_to(site) and base_path().stat().st_size > 0
print(sorted(shipped_configs()))
"""


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_carries_the_configs_and_runs_from_where_it_is_installed(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    # The dependencies are those of this environment: the wheel goes first on the path.
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    run(sys.executable, *install, cwd=tmp_path)
    code = CHECK.replace("SITE", repr(str(site)))
    shipped = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(site))
    assert shipped.strip() == str(sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
    listed = run(sys.executable, "-m", "visionlora.cli.main", "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert "train" in listed and "demo" in listed
