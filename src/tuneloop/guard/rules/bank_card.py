"""Rule `bank_card`: payment card numbers (ISO/IEC 7812) of the large networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard import digits
from tuneloop.guard.borders import BEGUN, RIGHT, before, is_sum, label, labelled
from tuneloop.guard.rules import Draw, Rule, Span

_LAYOUTS = tuple(
    re.compile(rf"[2-69]{BEGUN}(?<![0-9][\-. ].){layout}{RIGHT}(?!\.[0-9])")
    for layout in (
        r"[0-9]{12,18}",
        r"[0-9]{3}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}",
        r"[0-9]{3}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}\1[0-9]{1,3}",
        r"[0-9]{3}([ \-])[0-9]{6}\1[0-9]{4,5}",
        r"[0-9]{5}([ \-])[0-9]{10,13}",
    )
)
_LABEL = label(
    "(?:银行卡|信用卡|储蓄卡|借记卡|银联卡?|卡号|账号|帐号|账户|(?<![a-z])(?:card|visa|mastercard|amex|unionpay))(?:账号|帐号|卡)?"
)
_OTHER_NUMBER = re.compile(
    r"(?:订单|单号|流水|运单|工单|病历|住院|合同|发票|序列号|批号"
    r"|(?<![a-z])(?:order|invoice|ticket|tracking|serial|record|reference|ref|timestamp|id|imei|isbn|ean|seed))"
    r"[^0-9。；;，,\n]{0,12}$",
    re.IGNORECASE,
)
_ISSUERS = re.compile(  # first digits, and the lengths that go with them
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|5[1-5][0-9]{14}|(?:222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}|3(?:0[0-59]|[68][0-9])[0-9]{11}"  # American Express, Diners Club
    r"|(?:5018|5020|5038|6304|6759|676[1-3])[0-9]{12,15}"  # Maestro
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|35(?:2[89]|[3-8][0-9]))[0-9]{12}"  # Discover, JCB
    r"|6[02](?:[0-9]{14}|[0-9]{17})|9558[0-9]{15}"  # UnionPay and older Chinese cards; 62 and 18 digits: an id of Gansu
)


class BankCard(Rule):
    """Card numbers that begin like a network's, have its length, and pass the Luhn check or stand after 卡号, `card`.

    A number that the text calls an order, a receipt, an IMEI or an ISBN is none.
    """

    DIGITS: ClassVar[str | None] = r"(?:[ \-]?[0-9]){12}"

    def find(self, text: str) -> Iterable[Span]:
        for layout in _LAYOUTS:
            for match in layout.finditer(text):
                value = digits.only(match[0])
                if not _ISSUERS.fullmatch(value) or value.endswith("000000"):  # a round number is a sum
                    continue
                other = _OTHER_NUMBER.search(before(text, match.start())) or is_sum(text, match.start(), match.end())
                if labelled(_LABEL, text, match.start()) is not None or (digits.luhn(value) and not other):
                    yield Span(match.start(), match.end())

    def surrogate(self, text: str, draw: Draw) -> str:
        length = len(digits.only(text))
        while digits.luhn(new := "000" + digits.drawn(length - 3, draw.random)):  # no network begins with 0
            pass
        return digits.pour(new, text)
