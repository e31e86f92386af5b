"""Print every direct dependency at the lowest version that pyproject.toml admits, as constraints for pip.

python scripts/lowest_versions.py > constraints.txt
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)>=(?P<version>[0-9][0-9.]*)")


def lowest_versions(project: dict[str, Any]) -> list[str]:
    """Each requirement ``name>=version`` of pyproject's ``project`` table, extras too, as ``name==version``, once.

    An extra that names the project's own extras adds nothing.

    Raises ValueError for a requirement that is written in another way, as one without a lower bound is.
    """
    requirements = [*project["dependencies"]]
    for extra in project.get("optional-dependencies", {}).values():
        requirements += extra
    pins = []
    for requirement in requirements:
        if requirement.startswith(project["name"] + "["):
            continue
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"pyproject.toml: {requirement!r} is not of the form name>=version")
        pins.append(f"{match['name']}=={match['version']}")
    return list(dict.fromkeys(pins))


def main() -> int:
    print("\n".join(lowest_versions(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
