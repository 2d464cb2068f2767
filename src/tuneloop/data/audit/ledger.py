"""The row ledger: every row that came in is kept or dropped, per source and step, and the counts add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl

from tuneloop.core.conversation import JsonObject
from tuneloop.data.audit.blocks import Bars, Block, Note, Table
from tuneloop.data.audit.question import Question
from tuneloop.data.audit.quote import quoted
from tuneloop.data.audit.reading import Reading
from tuneloop.data.facts import Facts
from tuneloop.data.findings import finding
from tuneloop.pages.numbers import count, share

MANY_DROPPED = 0.05
SMALL = 100  # rows to measure on: below, a 95 % interval of an accuracy is wider than about ± 0.1
REASONS = 20
GOES_TO = {"any": "train, val, test", "train": "train only", "val": "val (own file)", "test": "test (own file)"}
CUT = 500  # characters of a reason, which may name what it found


def rows(facts: Facts) -> JsonObject:
    """in = kept + dropped, the dropped ones by step."""
    dropped: Counter[str] = Counter()
    for (_, step, _), number in facts.dropped.items():
        dropped[step] += number
    kept = facts.table.height
    assert facts.rows_in == kept + dropped.total(), f"{facts.rows_in} in, {kept} kept, {dropped.total()} dropped"
    repaired = int(facts.table["repaired"].sum())
    return {"in": facts.rows_in, "kept": kept, "repaired": repaired, "dropped": dict(dropped.most_common())}


def splits(facts: Facts, names: Sequence[str]) -> dict[str, int]:
    """Rows of each split."""
    found = _counts(facts.table, "split")
    assert set(found) <= set(names), f"rows of unknown splits: {found}"
    return {name: found.get(name, 0) for name in names}


def sources(facts: Facts) -> list[JsonObject]:
    """The same per source; a file that is named twice is one. That the sums agree proves that no row was lost."""
    kept = _counts(facts.table, "source")
    repaired = _counts(facts.table.filter(pl.col("repaired")), "source")
    gone: dict[str, Counter[str]] = {}
    for (path, step, _), number in facts.dropped.items():
        gone.setdefault(path, Counter())[step] += number
    ledger: list[JsonObject] = []
    for path in dict.fromkeys(source.path for source in facts.sources):
        same = [source for source in facts.sources if source.path == path]
        read, lost = sum(source.rows for source in same), gone.pop(path, Counter[str]())
        stay = kept.pop(path, 0)
        assert read == stay + lost.total(), f"{path}: {read} rows in, {stay} kept, {lost.total()} dropped"
        notes = Counter[str]()
        for source in same:
            notes.update(source.notes)
        ledger.append({
            "name": same[0].name,
            "path": path,
            "format": same[0].format,
            "confidence": same[0].confidence,
            "encoding": same[0].encoding,
            "goes_to": ", ".join(dict.fromkeys(source.goes_to for source in same)),
            "available": max(source.available for source in same),
            "rows": {"in": read, "kept": stay, "repaired": repaired.get(path, 0), "dropped": dict(lost.most_common())},
            "notes": dict(notes.most_common()),
        })  # fmt: skip
    assert not kept and not gone, f"rows of unknown sources: {[*kept, *gone]}"
    assert facts.rows_in == sum(source["rows"]["in"] for source in ledger)
    return ledger


class Ledger(Question):
    """What became of every input row."""

    name = "ledger"
    title = "Row ledger"
    about = "Every row that was read is kept or dropped; dropped.jsonl lists each dropped one with its reason."

    def measure(self, data: Reading) -> JsonObject:
        facts = data.facts
        reasons: Counter[tuple[str, str]] = Counter()
        for (_, step, reason), rows in facts.dropped.items():
            reasons[step, reason] += rows
        return {
            "shares": dict(facts.shares),
            "steps": list(dict.fromkeys(name for name, _ in facts.steps)),
            "reasons": [
                {"step": step, "reason": quoted(reason, CUT), "rows": rows}
                for (step, reason), rows in reasons.most_common(REASONS)
            ],
            "more_reasons": max(0, len(reasons) - REASONS),
        }

    def section(self, card: JsonObject) -> JsonObject:
        return {**card[self.name], **{key: card[key] for key in ("rows", "splits", "sources")}}

    def judge(self, section: JsonObject) -> list[JsonObject]:
        found = [*_about_splits(section)]
        for source in section["sources"]:
            rows, name = source["rows"], source["name"]
            lost = rows["in"] - rows["kept"]
            if lost > MANY_DROPPED * rows["in"]:
                most = max(rows["dropped"], key=lambda step: rows["dropped"][step])
                text = f"{name}: {count(lost)} of {count(rows['in'])} rows dropped, most by {most}"
                advice = "read some of them in dropped.jsonl; correct the source or that step"
                found.append(finding("WARN", "many_dropped", lost, text, source=source["path"], next=advice))
            if rows["in"] < source["available"]:
                text = f"{name}: {count(rows['in'])} of {count(source['available'])} rows used (limit or sample)"
                left = source["available"] - rows["in"]
                advice = "remove limit or sample from the source to use them all"
                found.append(finding("INFO", "not_all_used", left, text, source=source["path"], next=advice))
            for note, rows in source["notes"].items():
                found.append(finding("INFO", "decided", rows, f"{name}: {note}", source=source["path"]))
        return found

    def show(self, section: JsonObject) -> Sequence[Block]:
        steps = list(dict.fromkeys(step for source in section["sources"] for step in source["rows"]["dropped"]))
        apart = any(source["goes_to"] != "any" for source in section["sources"])
        table = Table(
            ["source", "format", "encoding", *(["goes to"] if apart else []), "in", "kept", "repaired", *steps],
            [
                [source["name"], source["format"], source["encoding"] or "binary",
                 *([str(GOES_TO.get(source["goes_to"], source["goes_to"]))] if apart else []),
                 *(count(source["rows"][key]) for key in ("in", "kept", "repaired")),
                 *(count(source["rows"]["dropped"].get(step, 0)) for step in steps)]
                for source in section["sources"]
            ],
            text=3 + apart,
        )  # fmt: skip
        names = [source["name"] for source in section["sources"]]
        short = [name.rsplit("/", 1)[-1] for name in names]  # a drawing cuts a path at its end, where paths differ
        bars = Bars(
            "What became of each source's rows",
            ["kept", *steps],
            [
                (
                    label,
                    [source["rows"]["kept"], *(source["rows"]["dropped"].get(step, 0) for step in steps)],
                    share(source["rows"]["kept"], source["rows"]["in"]),
                )
                for label, source in list(
                    zip(short if len(set(short)) == len(short) else names, section["sources"], strict=True)
                )[:30]
            ],
        )
        ran = "; ".join(f"{name} {count(section['rows']['dropped'].get(name, 0))}" for name in section["steps"])
        note = f"Steps that ran, and the rows that each dropped: {ran}." if ran else "No step ran: data.steps is empty."
        rest = section["more_reasons"]
        reasons = Table(
            ["step", "reason", "rows", "of all"],
            [
                [r["step"], r["reason"], count(r["rows"]), share(r["rows"], section["rows"]["in"])]
                for r in section["reasons"]
            ],
            title="Why rows were dropped",
            text=2,
            note=f"{rest} rarer reasons stand in dropped.jsonl." if rest else "",
        )
        return [*([bars] if steps else []), table, Note(note), *([reasons] if section["reasons"] else [])]


def _about_splits(section: JsonObject) -> list[JsonObject]:
    found: list[JsonObject] = []
    for name, rows in section["splits"].items():
        if rows == 0 and section["shares"].get(name, 0) > 0:
            level = "ERROR" if name == "train" else "WARN"
            advice = f"see why rows were dropped, or give {name} a larger share or a file of its own"
            found.append(finding(level, f"empty_{name}", 0, f"{name} is empty", next=advice))
        elif name == "test" and 0 < rows < SMALL:
            width = 1.96 * (0.25 / rows) ** 0.5
            text = f"only {rows} test rows: an accuracy near 0.5 is known to ± {width:.2f} at best"
            found.append(finding("WARN", "small_test", rows, text,
                                 next="give test a larger share or a file of its own"))  # fmt: skip
    return found


def _counts(table: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(table.group_by(column).len().sort("len", column, descending=[True, False]).iter_rows())
