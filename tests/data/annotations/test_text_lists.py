"""A text file that is no annotation file is told what it is."""

from pathlib import Path

import pytest

from visionlora.data.annotations.recognising import recognise
from visionlora.errors import InputError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#Image CLASS-ID SPECIES BREED ID\nAbyssinian_100 1 1 1\n", r"Oxford-IIIT Pet.*check-data .*pets;.*README"),
        ("0 0.5 0.5 0.1 0.2\n", "numbers of one image"),
        ("images/a.jpg\nimages/b.jpg\n", "names and no labels"),
        ("a.jpg dog\nb.jpg cat\n", "path,label first"),
    ],
)
def test_what_it_is_and_what_to_give(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pets" / "annotations" / "list.txt"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=f"list.txt: .*{said}"):
        recognise(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"some words of any kind\n", b"x" * 5000])
def test_of_others_nothing_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    if content[:1] == b"x":
        with pytest.raises(InputError):
            recognise(path)
    else:
        assert recognise(path) is None
