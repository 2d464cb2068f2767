"""Rule `person_name`: names of people beside a title or a word such as 姓名, `Dear`. Hints, never more.

Names of people are words: without a model nobody can tell 高明 the man from 高明 the clever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.borders import LEFT
from tuneloop.guard.rules import Draw, Rule, Span, Strength, Words

_HAN = "\u4e00-\u9fff"
_SURNAME = (
    "(?:欧阳|司马|上官|诸葛|东方|皇甫|尉迟|公孙|令狐|慕容|司徒|端木|夏侯"
    "|[王李张刘陈杨赵黄周吴徐孙胡朱林何郭罗梁宋郑谢韩唐冯董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田姜"
    "高马方任万白关庄柯游冉宁邢骆焦祝管詹"
    "范石姚谭廖邹熊金陆郝孔崔康毛邱秦江史顾侯邵孟龙段漕钱汤尹黎易武乔贺赖龚庞樊兰殷施陶洪翟颜倪严牛温季俞章鲁葛伍韦岳])"
)
_NAME = f"{_SURNAME}[{_HAN}]{{1,2}}"
_TITLES = "先生|女士|小姐|太太|夫人|医生|大夫|护士|教授|老师|经理|主任|律师|博士|同学|师傅|阿姨|叔叔"
_LABELS = (
    "姓名|患者|病人|联系人|收件人|收货人|寄件人|发件人|户名|法定代表人|法人|申请人|监护人|被保险人|投保人|家属"
    "|我叫|名叫|我的名字是|我的名字叫"
)
_STOP = f"(?=[^{_HAN}]|$|[的因在于是说来入被就有和与及男女已曾患自向从年主现性电手身出住民联]|先生|女士|小姐)"
_TITLED = re.compile(f"(?:(?P<name>{_NAME}?)|{_SURNAME})(?:{_TITLES})")
_LABELLED = re.compile(f'(?:{_LABELS})(?:"?\\s?[:：是为]\\s{{0,2}}"?(?:({_NAME}?){_STOP}|({_NAME}))|({_NAME}?){_STOP})')
_NO_NAME = re.compile(
    "高级|高等|高中|高考|任何|万一|关于|方面|宁可|马上|白天|项目|方法|部门|任课|小学|中学|大学|何时|何种|于是|张口|康复|温馨"
)
_WORD = "[A-Z][a-z]+(?:[-'’][A-Z][a-z]+)?"
_ENGLISH = (
    re.compile(rf"{LEFT}(?:Mrs|Mr|Ms|Miss|Mx|Dr|Prof|Professor|Doctor)\.? ({_WORD}(?: [A-Z]\.)?(?: {_WORD}){{0,2}})"),
    re.compile(
        rf"{LEFT}(?:[Mm]y name is|[Nn]ame|[Pp]atient|[Cc]ontact|[Cc]ustomer|[Ee]mployee)(?:\"?\s?[:=] ?\"?| is | )"
        rf"({_WORD}(?: [A-Z]\.)?(?: {_WORD}){{1,2}})"
    ),
    re.compile(
        rf"{LEFT}(?:Dear|Regards,|Sincerely,|[Mm]y name is|I am|I'm)[ \n]"
        r"(?!Sir|Madam|Customer|Team|All|Hiring|Friend|Valued|Editor|Members?|Guest|Parents?|Mom|Dad)"
        rf"({_WORD}(?: {_WORD})?)(?=[,.!\n]|$)"
    ),
)
_FAMILY = "张王李赵陈刘周吴"
_GIVEN = "甲乙丙丁戊己庚辛"
_INVENTED = ("Alex", "Sam", "Robin", "Kim", "Lee", "Jo", "Pat", "Max")


class PersonName(Rule):
    """Hints at names: a Chinese surname with a title (张先生, 李小明医生) or after 姓名, 患者, 联系人, 我叫; in English
    after Mr, Mrs, Ms, Dr, Prof, `Dear`, `my name is`, `Name:`, `Patient:`.
    """

    WORDS: ClassVar[Words] = (
        *_TITLES.split("|"),
        *_LABELS.split("|"),
        *(
            "Mr",
            "Ms",
            "Mx",
            "Miss",
            "Dr",
            "Prof",
            "Doctor",
            "name is",
            "ame:",
            'ame"',
            "ame'",
            "atient",
            "ontact",
            "ustomer",
        ),
        *("mployee", "Dear ", "Regards,", "Sincerely,", "I am ", "I'm "),
    )
    STRONGEST: ClassVar[Strength] = "weak"

    def find(self, text: str) -> Iterable[Span]:
        for match in () if text.isascii() else _TITLED.finditer(text):
            if not _NO_NAME.search(match[0]):
                end = match.end("name") if match["name"] else match.end()  # 张先生 whole: 张 alone is no name
                yield Span(match.start(), end, "weak")
        for match in () if text.isascii() else _LABELLED.finditer(text):
            group = match.lastindex or 0
            if not _NO_NAME.search(match[group]):
                yield Span(*match.span(group), "weak")
        for pattern in _ENGLISH:
            for match in pattern.finditer(text):
                yield Span(*match.span(1), "weak")

    def surrogate(self, text: str, draw: Draw) -> str:
        if text.isascii():
            return " ".join(draw.random.choice(_INVENTED) for _ in text.split())
        title = re.search(f"(?:{_TITLES})$", text)
        given = title[0] if title else "某" + (draw.random.choice(_GIVEN) if len(text) > 2 else "")
        return draw.random.choice(_FAMILY) + given
