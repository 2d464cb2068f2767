"""What an instruction asks to do to what: its first verb and that verb's object, in English and Chinese.

By lists of the verbs that instructions use, in Chinese also by the parts of speech of a dictionary segmenter. Both are
heuristics: an instruction without such a verb counts as a question, or as not recognised.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tuneloop.data.audit.units import is_chinese

Phrase = tuple[str, str]
"""(verb, object), each may be empty."""

VERBS = frozenset(
    """
act adapt add analyse analyze answer apply argue arrange assess assign brainstorm build calculate categorise
categorize change check choose cite classify collect combine come comment compare compile complete compose compute
conduct consider construct contrast convert correct craft create critique debug decide decode deduce define delete
demonstrate derive describe design detect determine develop devise differentiate discuss display distinguish divide
draft draw edit elaborate eliminate enumerate estimate evaluate examine expand explain explore express extract fill
filter find fix form format formulate generate give group guess help highlight hypothesize identify illustrate imagine
implement improve include infer insert interpret introduce invent judge justify label list locate make mark match
measure merge modify multiply name offer optimise optimize order organise organize outline paraphrase parse pick plan
point predict prepare present print produce propose prove provide rank rate read rearrange recommend redact refactor
reformat remove reorder repeat rephrase replace replicate report reply research respond restructure retrieve return
reverse review revise reword rewrite role-play score search select shorten show simplify simulate solve sort
specify spell split state suggest sum summarise summarize swap synthesise synthesize tag take tell test think trace
track transcribe transform translate troubleshoot turn unscramble update use utilize verify visualize vote work write
""".split()
)
QUESTIONS = frozenset("what which who whom whose when where why how".split())
BEFORE_VERBS = frozenset("please to and then or you now kindly also must should just can could would help".split())
AUXILIARIES = frozenset("is are was were do does did can could will would should has have am may might".split())
SKIPPED = frozenset(
    """
a an the this that these those some any each every all both its his her their our my your it's me us him them you it
one two three four five six seven eight nine ten following given below above up out down more most several few many
short brief simple new different possible good best detailed creative unique
""".split()
)
STOPS = frozenset(
    """
of for in on at to from by with without within about around across against among per into onto over under between
through during using based that which who whose where when why how what whether while if as and or but so because such
than is are was were be can could will would should do does did has have had not then i we they he she
""".split()
)
ENGLISH = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*|[.,;:?!\n\"“”()]")
VERBS_ZH = frozenset(
    """
写 编写 撰写 书写 创作 生成 创建 创造 制作 制定 制订 构建 构造 构思 设计 建立 搭建 开发 实现 列出 列举 举 举出 给出
提供 提出 推荐 建议 描述 描写 描绘 解释 说明 阐述 阐释 论述 讨论 探讨 介绍 定义 分析 剖析 解析 评价 评论 评估 评判
点评 比较 对比 总结 概括 概述 归纳 提炼 摘要 翻译 改写 重写 改编 改进 改善 修改 修正 修订 纠正 更正 润色 优化 编辑
扩写 扩展 续写 缩写 简化 转换 转化 转写 变换 替换 计算 求 求解 解决 解答 回答 推断 推理 推导 证明 判断 判定 确定 识别
辨别 鉴别 鉴定 检测 检查 查找 查询 搜索 寻找 找 找出 找到 提取 抽取 选择 挑选 选出 筛选 分类 归类 分组 排序 排列 整理
组织 安排 规划 计划 策划 预测 估计 估算 想象 设想 想出 模拟 扮演 命名 起 取 填写 填空 填充 补充 补全 完成 完善 标注
标记 添加 删除 插入 合并 拆分 组合 连接 匹配 绘制 画 造 造句 构成 组成 表达 阅读 朗读 输出 展示 告诉 引用 反驳 论证
辩论 支持 研究 调查 收集 统计 测量 验证 测试 调试
""".split()
)
NO_VERBS = frozenset(
    """
请 是 有 可以 能 能够 会 要 想 需要 应该 让 使 来 去 帮 帮助 帮忙 如下 以下 下表 包括 请问 没有 给 用 使用 根据 作为
知道 关于 给定
""".split()
)
LAST_NOUNS = ("n", "vn", "an", "eng", "l", "i", "j")
QUESTIONS_ZH = (
    "为什么",
    "怎么样",
    "怎么",
    "怎样",
    "如何",
    "什么",
    "哪些",
    "哪个",
    "哪里",
    "哪",
    "谁",
    "多少",
    "几",
    "是否",
)


def phrase(text: str) -> Phrase:
    """(verb, object) of an instruction; for questions (question word + "?", ""); ("", "") where nothing is recognised.

    >>> phrase("Give three tips for staying healthy."), phrase("请解释法国大革命的原因")
    (('give', 'tips'), ('解释', '原因'))
    """
    head = text[:300]
    return _chinese(head) if is_chinese(head) else _english(head)


def phrases(texts: Iterable[str]) -> Counter[Phrase]:
    """How often each phrase occurs; an object in the plural counts with its singular where that occurs too."""
    found = Counter(phrase(text) for text in texts)
    objects = {thing for _, thing in found}
    out: Counter[Phrase] = Counter()
    for (verb, thing), count in found.items():
        single = next(
            (s for s in (thing.removesuffix("es"), thing.removesuffix("s")) if s != thing and s in objects), thing
        )
        out[verb, single] += count
    return out


def _english(text: str) -> Phrase:
    found = [match.lower() for match in ENGLISH.findall(text)][:60]
    for index, word in enumerate(found):
        before = found[index - 1] if index else "."
        if word in VERBS and (_ends(before) or before in BEFORE_VERBS):  # not the noun: "the list", "a form"
            rest = found[index + 1 :]
            if rest[:2] == ["up", "with"]:
                return f"{word} up with", _object(rest[2:])
            joined = len(rest) > 1 and rest[0] in ("and", "or") and rest[1] in VERBS  # compare and contrast
            return word, _object(rest[2:] if joined else rest)
        if word in QUESTIONS and _ends(before):
            return f"{word}?", ""
    return ("yes or no?", "") if found and found[0] in AUXILIARIES else ("", "")


def _object(following: Sequence[str]) -> str:
    """The last word of the first noun phrase: adjectives stand before it, a preposition or a mark after it."""
    thing = ""
    for word in following[:8]:
        if word in QUESTIONS and not thing:
            return word  # explain how …, identify which …
        if _ends(word) or word in STOPS or (thing and word.endswith("ing")):
            if thing or word not in ('"', "“"):
                break
        elif word not in SKIPPED:
            thing = word
    return thing.removesuffix("'s").removesuffix("’s")


def _ends(word: str) -> bool:
    return not word[0].isalnum()


def _chinese(text: str) -> Phrase:
    import rjieba

    tagged = [(word, tag) for word, tag in rjieba.tag(text) if not word.isspace()][:60]
    asked = next((word for word in QUESTIONS_ZH if word in text), "")
    for index, (word, tag) in enumerate(tagged):
        following = tagged[index + 1 :]
        modifier = bool(following) and following[0][0] == "的"  # 提供的信息, 给定的文本
        usual = word in VERBS_ZH and word not in NO_VERBS
        if not modifier and (usual or (tag == "v" and word not in NO_VERBS and not asked)):
            moved = next((place for place in range(index) if tagged[place][0] in ("将", "把")), None)
            return word, _thing(tagged[moved + 1 : index] if moved is not None else following)
        if word in QUESTIONS_ZH:
            return f"{word}？", ""
    return (f"{asked}？", "") if asked else ("", "")


def _thing(following: Sequence[tuple[str, str]]) -> str:
    """The noun that the verb's clause ends in: after its last 的, or the last of its first run of nouns."""
    end = next(
        (place for place, (word, tag) in enumerate(following[:16]) if tag in ("x", "w", "c") or word in ("来", "以")),
        16,
    )
    clause = following[:end]
    last = max((place for place, (word, _) in enumerate(clause) if word == "的"), default=-1)
    thing = ""
    for word, tag in clause[last + 1 :]:
        if tag.startswith(LAST_NOUNS):
            thing = word
        elif thing:
            break
    return thing.lower()
