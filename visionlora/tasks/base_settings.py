"""Settings of a model that starts from another one's file."""

from typing import TypeVar

from pydantic import ValidationError

from visionlora.errors import InputError
from visionlora.models.stated import stated
from visionlora.sections import ModelSection

SectionT = TypeVar("SectionT", bound=ModelSection)

_OWN = {"name", "backbone", "pretrained", "checkpoint", "sha256"}


def like_its_file(section: SectionT) -> SectionT:
    """A config's section of the model, with what it leaves open as the whole model in its ``checkpoint`` has it.

    Raises:
        InputError: the file's settings are damaged.
    """
    said = stated(section.checkpoint)
    if said is None:
        return section
    values = section.model_dump()
    given = {key: value for key, value in said.settings.items() if key in values and key not in _OWN}
    filled = {key: value for key, value in given.items() if values[key] is None and value is not None}
    try:
        return type(section).model_validate({**values, **filled}) if filled else section
    except ValidationError as error:
        raise InputError(f"{section.checkpoint}: the settings of its model are damaged; save it again") from error
