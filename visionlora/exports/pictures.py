"""The last pictures that a run showed in TensorBoard, as files."""

from pathlib import Path

from visionlora.training.folder import EVENTS


def write_pictures(run: Path, folder: Path) -> dict[str, str]:
    """Write pictures/TAG.png for each of the run's pictures; tag -> path in the folder. Empty if it has none."""
    events = run / EVENTS
    if not events.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

    reader = EventAccumulator(str(events), size_guidance={IMAGES: 1})  # of each tag the last one
    reader.Reload()
    names = {}
    for tag in reader.Tags()[IMAGES]:
        name = "pictures/" + "".join(letter if letter.isalnum() else "_" for letter in tag) + ".png"
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(reader.Images(tag)[-1].encoded_image_string)
        names[tag] = name
    return names
