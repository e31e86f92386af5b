"""XML, parsed safely, and what wrote it."""

import re
from pathlib import Path
from xml.etree import ElementTree


class BrokenXmlError(Exception):
    """Carries only the reason why a file is no XML that can be read."""


class _DoctypeError(Exception):
    pass


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        """A document type can define entities that blow up or name other files; annotations need none."""
        raise _DoctypeError("it has a DOCTYPE, which annotations don't need")


def read_xml(path: Path) -> ElementTree.Element:
    """The root element. Raises BrokenXmlError, with the reason."""
    try:
        return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_Builder()))
    except (ElementTree.ParseError, _DoctypeError, ValueError, LookupError) as error:  # the last two: its encoding
        raise BrokenXmlError(str(error)) from error


def root_tag(path: Path) -> str | None:
    """The name of the root element, from the beginning of the file alone; None if there is none to be seen."""
    with path.open("rb") as file:
        head = file.read(20_000)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = re.sub(
        r"<!--.*?-->|<\?.*?\?>|<!DOCTYPE[^>\[]*(\[.*?\])?\s*>", "", head.decode(encoding, "replace"), flags=re.S
    )
    found = re.search(r"<([A-Za-z_][\w.-]*)", text)
    return found[1] if found else None


def number(element: ElementTree.Element, name: str) -> object:
    """The text of a child as a float where it is one, otherwise what is there."""
    return as_number(element.findtext(name))


def as_number(text: str | None) -> object:
    """A float where the text is one, otherwise the text."""
    try:
        return float(text or "")
    except ValueError:
        return text
