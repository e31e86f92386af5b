"""An evaluation's pictures show the outputs that were scored: nothing is computed for them again."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.runs import make_config, make_images
from visionlora.sections import RunConfig
from visionlora.tasks.evaluation import score
from visionlora.tasks.registry import task_of
from visionlora.training.state import as_trained


def classification(folder: Path) -> tuple[RunConfig, str]:
    return make_config(make_images(folder / "images", 2, 25), folder / "run"), "predictions"


def detection(folder: Path) -> tuple[RunConfig, str]:
    return make_detection_config(make_scenes(folder / "scenes", 2, 9), folder / "run", epochs=1), "detections"


def pixels(figure: Any) -> np.ndarray:
    if isinstance(figure, np.ndarray):
        return figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


@pytest.mark.parametrize("case", [classification, detection])
def test_pictures_ask_the_model_nothing_that_was_scored(case: Any, tmp_path: Path) -> None:
    config, name = case(tmp_path)
    task, device = task_of(config.task), torch.device("cpu")
    setup = task.set_up(config)
    trained = as_trained(config, setup, setup.built.model.eval())
    metrics: Any = score(trained, setup.val, 4)

    def refuse(*_arguments: Any) -> NoReturn:
        raise AssertionError("the model ran")

    handle = trained.model.register_forward_pre_hook(refuse)
    shown = pixels(task.figures(trained, setup.val, metrics, device)[name])
    handle.remove()

    without: Any = task.metrics(trained, setup.val, device)  # as of a process that saw none of the images
    without.curves = metrics.curves if name == "detections" else None
    without.confusion = metrics.confusion if name == "predictions" else None
    assert np.array_equal(pixels(task.figures(trained, setup.val, without, device)[name]), shown)
