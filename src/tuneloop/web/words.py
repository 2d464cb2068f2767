"""All texts of the pages, in English and Chinese."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: dict[Language, str] = {"en": "English", "zh": "中文"}

WORDS: dict[str, tuple[str, str]] = {
    "ask": ("Ask something", "请输入问题"),
    "send": ("Send", "发送"),
    "stop": ("Stop", "停止"),
    "new": ("New chat", "新对话"),
    "model": ("Model", "模型"),
    "settings": ("Settings", "设置"),
    "system": ("Instruction to the model (system prompt)", "给模型的指令（系统提示）"),
    "temperature": ("Temperature: 0 always gives the same answer", "温度：0 表示每次回答相同"),
    "length": ("Longest answer, tokens", "回答的最大长度（词元）"),
    "theme": ("Light or dark", "浅色或深色"),
    "language": ("中文", "English"),
    "talk": ("Conversation", "对话"),
    "good": ("Good answer", "回答得好"),
    "bad": ("Bad answer", "回答得不好"),
    "correct": ("Write a better answer", "写出更好的回答"),
    "copy": ("Copy", "复制"),
    "copied": ("Copied", "已复制"),
    "thanks": ("Thank you: your vote is kept", "谢谢，您的评价已保存"),
    "better": ("The answer as it should be", "正确的回答应该是"),
    "why": ("What was wrong? (optional)", "哪里不对？（可不填）"),
    "save": ("Save", "保存"),
    "cancel": ("Cancel", "取消"),
    "empty": ("What would you like to know?", "您想了解什么？"),
    "hint": ("Enter sends, Shift+Enter starts a new line, Esc stops", "回车发送，Shift+回车换行，Esc 停止"),
    "cut": ("cut at the longest answer", "已达到最大长度，回答被截断"),
    "stopped": ("stopped", "已停止"),
    "silent": ("the model said nothing", "模型没有给出内容"),
    "key": ("Your key", "您的密钥"),
    "enter": ("Enter", "进入"),
    "leave": ("Log out", "退出"),
    "wrong_key": ("This key may not chat here", "此密钥无权在此对话"),
    "login": ("This server asks for a key", "此服务器需要密钥"),
    "not_session": ("Your session has ended; load the page anew", "会话已结束，请重新加载页面"),
    "not_role": ("Your key does not allow this", "您的密钥没有此权限"),
    "not_model": ("This model is not here any more", "此模型已不可用"),
    "not_busy": ("Too many are asking just now; try again in a moment", "当前请求过多，请稍后再试"),
    "not_closed": ("The server takes no requests just now; try again soon", "服务器暂时不接受请求，请稍后再试"),
    "not_late": ("The answer took too long and was given up", "回答耗时过长，已放弃"),
    "not_asked": ("This cannot be answered: {detail}", "无法回答：{detail}"),
    "not_gone": ("This answer is not kept any more", "此回答已不再保存"),
    "not_fault": ("A fault of the server; its log tells more", "服务器出错，详情见其日志"),
}  # fmt: skip


def spoken(accepted: str) -> Language:
    """The language of an Accept-Language header: Chinese where the browser puts it before English."""
    for part in accepted.lower().split(","):
        if part.strip().startswith("zh"):
            return "zh"
        if part.strip().startswith("en"):
            return "en"
    return "en"


def word(name: str, language: Language, **values: str) -> str:
    """A text; `values` fill its places."""
    return WORDS[name][language == "zh"].format(**values)
