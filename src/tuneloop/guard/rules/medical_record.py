"""Rule `medical_record`: numbers by which a hospital or an insurer knows a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard import digits
from tuneloop.guard.borders import FIVE_DIGITS, RIGHT, label, labelled
from tuneloop.guard.rules import Draw, Rule, Span, Words

_NUMBER = re.compile(rf"[0-9](?<![0-9].)(?:[\- ]?[0-9]){{4,17}}{RIGHT}")
_LABEL = label(
    r"(?:病历|病案|住院|门诊|急诊|就诊|就诊卡|挂号|登记|检查|标本|医保|医保卡|社保|社保卡|患者|病人)(?:号码?|编号|ID|卡号)"
    r"|(?<![a-z])(?:mrn|(?:medical|health|patient)[ _]record|patient[ _]?(?:id|number|no)|chart[ _](?:number|no)"
    r"|nhs[ _]number|health[ _](?:insurance|plan|card)|insurance[ _](?:id|number)|medicare|medicaid|member[ _]id)",
    "[A-Za-z]{1,4}-?",
)


class MedicalRecord(Rule):
    """Numbers of five digits and more after 病历号, 住院号, 医保号, `MRN`, `patient ID` and the like.

    Hospitals share neither form nor check digit. Numbers that begin with 9999 are taken for surrogates.
    """

    DIGITS: ClassVar[str | None] = FIVE_DIGITS
    WORDS: ClassVar[Words] = (
        *(
            "病历",
            "病案",
            "住院",
            "门诊",
            "急诊",
            "就诊",
            "挂号",
            "登记",
            "检查",
            "标本",
            "医保",
            "社保",
            "患者",
            "病人",
        ),
        *("MRN", "mrn", "ecord", "ECORD", "atient", "ATIENT", "hart", "CHART", "NHS", "nhs", "ealth", "HEALTH"),
        *("nsurance", "NSURANCE", "edica", "EDICA", "ember", "EMBER"),
    )

    def find(self, text: str) -> Iterable[Span]:
        for match in _NUMBER.finditer(text):
            start = labelled(_LABEL, text, match.start())
            if start is not None and not digits.only(match[0]).startswith("9999"):
                yield Span(start, match.end())

    def surrogate(self, text: str, draw: Draw) -> str:
        count = len(digits.only(text))
        return digits.pour("9999" + digits.drawn(count - 4, draw.random), digits.redraw(text, draw.random))
