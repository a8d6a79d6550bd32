"""What the clean options of PS3.15 section E.3 leave of text, content items and graphics.

None of it reads language: of a text those words stay that a list names as saying nothing of a
person, of a report its structure, codes and numbers, of graphics the shapes that spell nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

WORDS_FILE = Path(__file__).with_name("descriptor_words.txt")
REMOVED = "REMOVED"

_WORD = re.compile(r"[^\W_]+")
_TEXT_VRS = ("CS", "LO", "LT", "SH", "ST", "UC", "UT")
_STANDARD_SCHEMES = ("DCM", "FMA", "LN", "NCIt", "RADLEX", "SCT", "SNM3", "SRT", "UCUM", "UMLS")
"""Coding schemes (PS3.16 section 8) whose meanings are published, and so nobody's own words."""
_SHAPES = ("CIRCLE", "ELLIPSE", "POINT")
_MOST_POINTS = 8
"""Of a line that stays: an arrow or a frame. Longer ones can be handwriting."""


class Vocabulary:
    """The words that may stay. `file`: one a line, whatever the case; ``#`` begins a comment."""

    def __init__(self, file: Path) -> None:
        lines = file.read_text(encoding="utf-8").splitlines()
        self._words = {word.casefold() for line in lines for word in _words(line.partition("#")[0])}

    def cleaned(self, text: str) -> str:
        """The words of a text that may stay, in their order; numbers stay only when listed."""
        return " ".join(word for word in _words(text) if word.casefold() in self._words)

    def cleaned_element(self, vr: str, value: object) -> list[str]:
        """The values of an element, cleaned; empty when nothing of them stays."""
        if vr not in _TEXT_VRS or value is None:
            return []
        values = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
        cleaned = [self.cleaned(str(one)) for one in values]
        return cleaned if any(cleaned) else []


def clean_content_item(item: Dataset, vocabulary: Vocabulary) -> None:
    """A content item (PS3.3 section C.17.3) whose listed attributes are de-identified already:
    its text, and the meanings of codes that are somebody's own.
    """
    if "TextValue" in item:
        item.TextValue = vocabulary.cleaned(str(item.TextValue or "")) or REMOVED
    for element in item:
        if element.VR != "SQ":
            continue
        for code in element.value:
            scheme = str(code.get("CodingSchemeDesignator", "") or "")
            if "CodeMeaning" in code and scheme not in _STANDARD_SCHEMES:
                code.CodeMeaning = vocabulary.cleaned(str(code.CodeMeaning or "")) or REMOVED


def clean_graphics(item: Dataset) -> None:
    """An item of the Graphic Annotation Sequence (PS3.3 section C.10.5): shapes stay, texts go."""
    for keyword in ("TextObjectSequence", "CompoundGraphicSequence"):
        if keyword in item:
            delattr(item, keyword)
    if "GraphicObjectSequence" not in item:
        return
    kept = [one for one in item.GraphicObjectSequence if _spells_nothing(one)]
    if kept:
        item.GraphicObjectSequence = Sequence(kept)
    else:
        del item.GraphicObjectSequence


def _spells_nothing(graphic: Dataset) -> bool:
    points = graphic.get("NumberOfGraphicPoints") or 0
    return graphic.get("GraphicType") in _SHAPES or points <= _MOST_POINTS


def _words(text: str) -> list[str]:
    return _WORD.findall(text)
