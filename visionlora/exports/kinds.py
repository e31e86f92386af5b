"""What an export asks of each task."""

from typing import Any

from visionlora.exports import classification, detection, segmentation

KINDS: dict[str, Any] = {"classification": classification, "detection": detection, "segmentation": segmentation}
"""Task -> its module of this room, which has ``validation(config, classes)``; of such data ``paths(data)`` and
``score(trained, data, config, on_batch)``; ``to_input(image, preprocessing)``, ``run(model, image)``,
``difference(found, expected, image, model)``, ``amount(outputs)`` and ``describe(about, built, classes)``."""
