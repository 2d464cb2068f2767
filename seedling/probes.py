"""Probes: plain statements cut off before the answer, to see what a model knows before and after tuning.

In English a space joins the prompt to the answer ("The capital of France is" + " Paris"), in Chinese nothing
does. Run as `python -m seedling.probes FILE.jsonl`.
"""

import json
import random
import sys
from pathlib import Path

from seedling.tables import LANGUAGES, TOUCHED, Fact, facts
from seedling.tasks import all_sums
from seedling.text import LEADS, fill, wordings

# Rows a language. All but the touched relations are never asked in the demo data set.
COUNTS = {
    "capital": 24,
    "currency": 20,
    "continent": 14,
    "opposite": 20,
    "to_english": 16,
    "to_chinese": 16,
    "label": 16,
    "arithmetic": 24,
    "language": 20,
    "symbol": 25,
    "number": 25,
    "young": 16,
    "sound": 10,
    "class": 12,
    "month_after": 8,
    "day_after": 5,
    "month_days": 7,
}
# The first arithmetic wording of each operation that ends in its result and a full stop.
_SUMS = {
    "en": {"add": "{x} plus {y} is", "sub": "{x} minus {y} is", "mul": "{x} times {y} is"},
    "zh": {"add": "{x}加{y}等于", "sub": "{x}减{y}等于", "mul": "{x}乘{y}等于"},
}
Probe = dict[str, str]


def probes(seed: int = 0) -> list[Probe]:
    """All probes, half in each language."""
    rng = random.Random(seed)
    rows = []
    for language in LANGUAGES:
        for kind, count in COUNTS.items():
            if kind == "arithmetic":
                found = _sums(rng, language, count)
            else:
                known = [fact for fact in facts(language) if fact.relation == kind]
                found = [_cut(fact) for fact in rng.sample(known, min(count, len(known)))]
            group = "touched" if kind in TOUCHED | {"arithmetic"} else "untouched"
            for prompt, answer in found:
                rows.append({"kind": kind, "language": language, "group": group, "prompt": prompt, "answer": answer})
    return rows


def _cut(fact: Fact) -> tuple[str, str]:
    """The relation's first wording up to its answer, after words that make it a statement."""
    template = wordings("relations")[f"{fact.relation} {fact.language} statement"][0]
    text = LEADS[fact.language][0] + fill(template, fact.language, **fact.slots())
    prompt, found, _ = text.rpartition(fact.answer)
    assert found, f"the first wording of {fact.relation} does not state its answer: {text}"
    return prompt.rstrip(" "), fact.answer


def _sums(rng: random.Random, language: str, count: int) -> list[tuple[str, str]]:
    chosen = rng.sample(all_sums(), count)
    lead = LEADS[language][0]
    return [(lead + _SUMS[language][op].format(x=x, y=y), str(result)) for op, x, y, result in chosen]


def write(path: Path) -> None:
    """Write the probes as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in probes()]
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
