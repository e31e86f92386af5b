"""The index of a fleet's folder: its cameras, their versions, and a line for every change, in one file.

A change is one replacement of this file, so a process that is killed leaves the fleet before the change or after it.
Adapters lie beside it under names that nobody gets twice; one that no version names was not finished, and counts for
nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from visionlora.errors import InputError, did_you_mean, shown
from visionlora.files import write_atomic
from visionlora.plain_json import read_json

INDEX, FILES = "fleet.json", "adapters"
CAMERA = r"[A-Za-z0-9_-]{1,64}"
_LARGEST = 1 << 28
"""Bytes of an index that is read."""

Camera = Annotated[str, Field(pattern=f"^{CAMERA}$")]
Text = Annotated[str, Field(max_length=1000)]
Number = Annotated[int, Field(ge=1, lt=1 << 31)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Version(_Strict):
    """An adapter that a camera has, or had.

    Attributes:
        number: 1, 2 ... for each camera.
        sha256: of its file.
        bytes: of its file.
        added: when, in UTC (ISO 8601).
        note: of whoever added it.
        classes: in the order of the outputs; None where its file doesn't say.
        task: of its model; empty where its file doesn't say.
        scores: on the validation images of its run.
        data: the section ``data`` of its run's config; empty for a file from no run folder.
        method: of its config; rank: the largest of its layers'.
    """

    number: Number
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1)]
    added: Text
    note: Text = ""
    classes: list[Text] | None = None
    task: Text = ""
    scores: dict[Text, float] = {}
    data: dict[str, Any] = {}
    method: Text = ""
    rank: int = 0

    def file(self, camera: str) -> str:
        """Where it lies in the folder."""
        return f"{FILES}/{camera}/{self.number:04}-{self.sha256[:12]}.safetensors"


class Entry(_Strict):
    """A camera.

    Attributes:
        current: number of the version that it uses.
        versions: in the order in which they were added.
    """

    current: Number
    versions: Annotated[list[Version], Field(min_length=1)]

    @model_validator(mode="after")
    def _numbered(self) -> "Entry":
        if [version.number for version in self.versions] != list(range(1, len(self.versions) + 1)):
            raise ValueError("versions are not numbered 1, 2 ...")
        if self.current > len(self.versions):
            raise ValueError(f"current is {self.current} of {len(self.versions)} versions")
        return self

    def version(self, number: int | None = None) -> Version:
        """A version by its number; the current one by default. InputError if there is none."""
        number = self.current if number is None else number
        if not 1 <= number <= len(self.versions):
            raise InputError(f"no version {number}; there are 1 to {len(self.versions)}")
        return self.versions[number - 1]


class Change(_Strict):
    """A line of the audit: when (UTC), who (user@host), and what was done to which camera."""

    when: Text
    who: Text
    what: Literal["add", "rollback"]
    camera: Camera
    version: Number
    before: Annotated[int, Field(ge=0)]
    note: Text = ""


class Index(_Strict):
    """What a fleet's folder holds."""

    cameras: dict[Camera, Entry] = {}
    audit: list[Change] = []

    def entry(self, camera: str, folder: Path) -> Entry:
        """Of a camera. InputError if the fleet has none of this name."""
        if camera not in self.cameras:
            there = ", ".join(self.cameras) or "none"
            raise InputError(
                f"{folder}: no camera '{camera}'{did_you_mean(camera, self.cameras)}; there are {there}; "
                "visionlora fleet add makes one"
            )
        return self.cameras[camera]


def read_index(folder: Path) -> Index:
    """The index of a fleet's folder.

    Raises:
        InputError: it is no such folder, or its index is damaged, foreign or of a newer version.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{folder}: holds no {INDEX}, so it is no fleet; visionlora fleet add makes one")
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path}: {path.stat().st_size} bytes are more than a fleet's index has")
    try:
        content = read_json(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: is damaged ({error}); bring a copy back") from error
    if not isinstance(content, dict) or content.get("format") != "visionlora-fleet":
        raise InputError(f"{path}: is no index of a fleet")
    if content.get("format_version") != 1:
        raise InputError(f"{path}: format {shown(content.get('format_version'))}, and this visionlora reads format 1")
    fields = {key: value for key, value in content.items() if key not in ("format", "format_version", "sha256")}
    if content.get("sha256") != _digest(fields):
        raise InputError(f"{path}: is damaged or was edited, its hash is not what it says; bring a copy back")
    try:
        return Index.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where} is {shown(first['input'])}: {first['msg']}; bring a copy back") from error


def write_index(folder: Path, index: Index) -> None:
    """Replace the index, at once."""
    fields = index.model_dump(mode="json")
    content = {"format": "visionlora-fleet", "format_version": 1, "sha256": _digest(fields), **fields}
    text = json.dumps(content, indent=1) + "\n"
    write_atomic(folder / INDEX, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
