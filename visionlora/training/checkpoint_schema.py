"""The JSON of a checkpoint, to its last value."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visionlora.errors import shown

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Unreadable(_Strict):
    index: _Count
    epoch: _Count
    files: list[str]
    reason: str


class _Progress(_Strict):
    """Of ``checkpoint.Progress``; older ones lack some."""

    epoch: _Count
    batch: _Count
    step: _Count
    best: float | None
    best_epoch: _Count
    stale: _Count
    retained: float | None = None
    loss_sum: float
    loss_count: _Count
    micro_batch: _Count = 0
    skipped: _Count = 0
    skipped_in_row: _Count = 0
    unreadable: list[_Unreadable] = []
    seconds: float
    metrics_bytes: _Count
    metrics_sha256: str = ""
    events: list[_Count] | None = None
    finished: bool


class _Part(_Strict):
    images: _Count
    paths: str
    labels: str


class _Data(_Strict):
    classes: list[str]
    train: _Part | None = None
    val: _Part | None = None
    retain: _Part | None = None


class _State(_Strict):
    progress: _Progress
    groups: list[list[_Count]]
    scaler: dict[str, Any]
    python_random: Annotated[list[Any], Field(min_length=3, max_length=3)]
    numpy_random: Annotated[list[Any], Field(min_length=5, max_length=5)]
    base: str
    data: _Data | None = None


def check_state(description: Any) -> None:
    """Raise ValueError, in a few words, unless this is what ``save_checkpoint`` writes."""
    try:
        _State.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where} is {shown(first['input'])}: {first['msg'].lower()}") from error
