"""The oldest environment is made of what pyproject.toml says, and of nothing else."""

import re
import tomllib

import pytest

from lowest_versions import PYPROJECT, lowest_versions, main


def test_every_direct_dependency_is_held_at_its_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    text = PYPROJECT.read_text()
    assert main() == 0
    pins = capsys.readouterr().out.split()
    assert len(pins) == len(set(pins))
    project = tomllib.loads(text)["project"]
    asked = {*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)}
    own = {one for one in asked if one.startswith("visionlora[")}
    assert {pin.replace("==", ">=") for pin in pins} == asked - own
    for requirement in own:
        assert set(re.findall(r"\w+", requirement)[1:]) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize(
    "requirement", ["torch", "torch<3", "torch>=2.10,<3", "torch>2", "torch==2.10", "torch>=2.10; x"]
)
def test_a_requirement_that_has_no_plain_lower_bound_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(repr(requirement))} is not of the form name>=version"):
        lowest_versions({"name": "ours", "dependencies": ["timm>=1", requirement]})


def test_one_version_counts_once_and_our_own_extras_not_at_all() -> None:
    extras = {"video": ["av>=18"], "test": ["ours[video]", "av>=18", "pytest>=8"]}
    project = {"name": "ours", "dependencies": ["torch>=2.10"], "optional-dependencies": extras}
    assert lowest_versions(project) == ["torch==2.10", "av==18", "pytest==8"]
