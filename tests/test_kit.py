"""On real weights and real photos: short runs, and a merged model that needs no visionlora."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from visionlora.cli.configs import find_config
from visionlora.cli.main import main
from visionlora.config import load_config
from visionlora.tasks.trained import load_trained
from visionlora.training.run import train

# A batch through the plain timm model, in a process that never hears of visionlora.
PLAIN = """
import json, sys, timm, torch
from safetensors.torch import load_file
name, weights, images, logits, settings = sys.argv[1:]
model = timm.create_model(name, num_classes=2, **json.loads(settings))
model.load_state_dict(load_file(weights), strict=True)
with torch.no_grad():
    found = model.eval()(torch.load(images))
assert "visionlora" not in sys.modules
print((found - torch.load(logits)).abs().max().item())
"""

LITE_MEAN_STD = ["model.mean=[0.49804, 0.49804, 0.49804]", "model.std=[0.50196, 0.50196, 0.50196]"]
CASES = [
    ("classification_vit_tiny", "vit_tiny_patch16_224", ["model.img_size=96"]),
    ("classification_efficientnet_lite0", "tf_efficientnet_lite0", [*LITE_MEAN_STD, "model.img_size=96"]),
]
"""Smaller than the models' own size, for these runs are the longest of all tests."""
PHOTOS = {"train": 32, "val": 24}
"""Of each class; there are five times as many."""


def some_of(photos: Path, folder: Path) -> Path:
    """The folder, with as many of each class."""
    for part, count in PHOTOS.items():
        for name in ("ants", "bees"):
            (folder / part / name).mkdir(parents=True)
            for photo in sorted((photos / part / name).iterdir())[:count]:
                (folder / part / name / photo.name).symlink_to(photo)
    return folder


@pytest.mark.parametrize(("config", "name", "overrides"), CASES, ids=[case[1] for case in CASES])
def test_a_short_run_learns_and_its_merged_model_is_plain_timm(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, name: str, overrides: list[str]
) -> None:
    photos = some_of(kit / "data" / "ants_bees_256", tmp_path / "photos")
    settings = [
        f"data.root={photos}",
        f"model.checkpoint={kit / 'weights' / name}.safetensors",
        f"out={tmp_path / 'run'}",
        "data.workers=0",
        "train.epochs=2",
        "train.evaluate_every=2",
        "train.batch_size=8",
    ]
    result = train(load_config(find_config(config), [*settings, *overrides]), quiet=True)
    assert result.scores["top1"] > 0.5 + 0.2, "no better than one class for all"
    assert json.loads((result.folder / "report.json").read_text())["saved_bytes"] < 2e6

    adapted = load_trained(result.folder, merged=False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, adapted.preprocessing.height, adapted.preprocessing.width, generator=generator)
    with torch.no_grad():
        logits = adapted.model(images)
    torch.save(images, tmp_path / "images.pt")
    torch.save(logits, tmp_path / "logits.pt")
    merged = tmp_path / "merged.safetensors"
    monkeypatch.setattr(sys, "argv", ["visionlora", "merge", str(result.folder), "--out", str(merged)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert load_file(merged).keys() == adapted.model.state_dict().keys() - {
        key for key in adapted.model.state_dict() if ".adapters." in key
    }
    settings = {"img_size": adapted.preprocessing.height} if name.startswith("vit") else {}
    files = [merged, tmp_path / "images.pt", tmp_path / "logits.pt"]
    command = [sys.executable, "-c", PLAIN, name, *map(str, files), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5 * max(1.0, float(logits.abs().max()))
