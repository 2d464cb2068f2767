"""Step `noise`: drops rows whose answer is none worth learning."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic import Field, model_validator

from tuneloop.core.conversation import Example, Message
from tuneloop.data.repetition import may_repeat, repetition
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.texts.refusals import BEGINNING, disclaims, may_decline, refuses

LONG = 100  # characters from which an answer that ends in a comma is cut off

_EMPTY = re.compile(
    r"(?i)[\s.。…·_~—-]*|nan|undefined|\[object object\]|\W*no[ _-]?(?:in|out)put\W*|\[(?:deleted|removed)\]|todo|tbd"
    r"|lorem ipsum.*|暂无[。.]?|待补充[。.]?|略[。.]?",
    re.S,
)
_ABOUT_AI = re.compile(
    r"(?i)\bai\b|artificial|language model|\bbot\b|robot|assistant|chatgpt|人工智能|机器人|模型|助手|你是谁|你叫"
)
_WEB_SIGNS = (
    "rights reserved", "cookie", "subscri", "newsletter", "javascript", "follow us", "click here", "share this",
    "not found", "forbidden", "denied", "privacy policy",
)  # fmt: skip
_ALL_WEB_SIGNS = (
    *_WEB_SIGNS, "版权", "转载", "公众号", "扫码", "扫描", "点击", "原文", "编辑", "icp", "登录", "页面",
)  # fmt: skip
_WEB = re.compile(
    r"(?i)all rights reserved|we use cookies|accept (?:all )?cookies|this (?:web)?site uses cookies"
    r"|subscribe to (?:our|my|the)\b|sign up for our newsletter|enable javascript|javascript is (?:disabled|required)"
    r"|follow us on \w+|click here to (?:subscribe|read|download|view|unsubscribe|learn)"
    r"|share this (?:article|post|page|story)|\b40[34] (?:not found|forbidden)|page not found|access denied"
    r"|see our privacy policy|版权所有|未经(?:授权|许可|允许)[^。]{0,10}(?:转载|不得)|转载请注明|阅读原文|责任编辑[:：]"
    r"|ICP备|(?:扫码|扫描)[^。]{0,10}(?:关注|二维码)|关注[^。]{0,8}公众号|点击(?:关注|订阅|上方|下方|阅读原文|查看更多)"
    r"|登录后(?:查看|可见|阅读)|本(?:网)?站使用\s?cookie|抱歉，页面不存在"
)
_ABOUT_WEB = re.compile(
    r"(?i)web|site|\bpage|newsletter|cookie|privacy|polic|subscri|blog|e-?mail|copyright|html|javascript|banner|notice"
    r"|footer|http|advert|网|公众号|版权|邮件|隐私|声明|文案|推文|营销|广告|订阅|页|海报|合同|协议"
)
_CUT_OFF = re.compile(
    r"[,，、；:：]\s*\Z|\b(?:and|or|the|of|to|a|an|with|for|in|that|which|is|are)\s*\Z|[和与或及]\s*\Z"
)


class _Problem(NamedTuple):
    reason: str
    span: str


class Noise(RowStep):
    """Drops rows whose answer is empty, a refusal, a disclaimer, boilerplate of web pages, cut off or repeats itself.

    Looked at are the supervised messages. What the prompt asks for stays: a cookie notice that it wants written, or
    what an assistant says of itself when it is asked. Refusals stay in conversations with tools: there they say what
    the tools cannot do.
    """

    empty: bool = True
    """Drop answers without content: nothing, dots, NaN, [deleted], <noinput>, 暂无."""
    refusals: bool = True
    """Drop short answers that only say that they cannot, or that the input is missing."""
    disclaimers: bool = True
    """Drop answers that begin with what an AI is not: "As an AI language model, I …", 作为一个人工智能…"""
    boilerplate: bool = True
    """Drop answers with cookie notices, calls to subscribe, copyright lines and the like."""
    cut_off: bool = True
    """Drop long answers that end in a comma or in the middle of a sentence or code block."""
    max_repetition: float = Field(default=0.5, ge=0, le=1)
    """Largest share of an answer that repeats earlier words of it; natural texts have under 0.25. 1: do not look."""

    @model_validator(mode="after")
    def _does_something(self) -> Noise:
        checks = (self.empty, self.refusals, self.disclaimers, self.boilerplate, self.cut_off, self.max_repetition < 1)
        if not any(checks):
            raise ValueError("every check is off; leave the step out")
        return self

    def look(self, example: Example) -> Example | Rejection:
        for number, message in enumerate(example.messages):
            if message.weight > 0:
                problem = self._problem(example, message)
                if problem is not None:
                    return Rejection(problem.reason, {"message": number, "span": problem.span})
        if self.max_repetition < 1:
            for number, message in enumerate(example.messages):
                if message.weight > 0 and may_repeat(message.content):
                    found = repetition(message.content)
                    if found is not None and found.share > self.max_repetition:
                        evidence = {"share": round(found.share, 3), "span": found.span, "times": found.times}
                        return Rejection("the answer repeats itself", {"message": number, **evidence})
        return example

    def _problem(self, example: Example, message: Message) -> _Problem | None:
        text = message.content
        if len(text) < 20 and _EMPTY.fullmatch(text):
            calls = bool(message.tool_calls)
            return _Problem("the answer is empty", text) if self.empty and not calls else None
        if (self.refusals or self.disclaimers) and not example.tools and may_decline(text):
            if self.refusals and refuses(text):
                return _Problem("the answer is a refusal", text[:160])
            if self.disclaimers and disclaims(text) and not _asked(example, _ABOUT_AI):
                return _Problem("the answer begins with a disclaimer", text[:BEGINNING])
        if self.boilerplate and any(map(text.lower().__contains__, _WEB_SIGNS if text.isascii() else _ALL_WEB_SIGNS)):
            found = _WEB.search(text)
            if found is not None and not _asked(example, _ABOUT_WEB):
                return _Problem(
                    "the answer has boilerplate of a web page", text[max(0, found.start() - 20) : found.end() + 20]
                )
        if self.cut_off and len(text) >= LONG and (text.count("```") % 2 or _CUT_OFF.search(text[-20:])):
            return _Problem("the answer is cut off", text[-40:])
        return None


def _asked(example: Example, subject: re.Pattern[str]) -> bool:
    return any(subject.search(message.content) for message in example.messages if message.role == "user")
