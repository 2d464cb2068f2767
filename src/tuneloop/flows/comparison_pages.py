"""Runs side by side in the terminal, as Markdown and as a page: rows of a sweep, or a comparison on shared examples.

Everything shown comes from rows and from the value of compare.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneloop.evaluate import page
from tuneloop.evaluate.report import verdict
from tuneloop.evaluate.scoring import NOTHING
from tuneloop.evaluate.table import COLOURS
from tuneloop.flows.comparison import Row, columns, common_base, cost, costs
from tuneloop.pages import charts, drawing
from tuneloop.pages.markdown import plain, table
from tuneloop.pages.numbers import interval, number, percent, probability
from tuneloop.pages.page import render
from tuneloop.texts.difference import differences

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

Json = dict[str, Any]
LISTED, LISTED_IN_MARKDOWN = 30, 10  # wins and losses; compare.json has more
GATE_COLOURS = {"pass": "green", "worse": "red", "not enough evidence": "yellow"}


class Line(NamedTuple):
    """One run against the reference by one metric."""

    label: str
    run: str
    first: Json
    second: Json
    change: Json
    facts: Json

    @property
    def p(self) -> str:
        return probability(self.change.get("p_holm", self.change["p"]))

    def verdict(self, confidence: float) -> str:
        return verdict(self.change, self.facts["better"], confidence)


def lines_of(value: Json, metric: str, key: str | None = None) -> Iterator[Line]:
    """The comparison by one metric: of all shared examples, or of each slice of a key."""
    facts = value["metrics"][metric]
    for label, entry in {metric: facts}.items() if key is None else _entries(value, metric, key):
        for run, change in entry["differences"].items():
            yield Line(label, run, entry["values"][value["reference"]], entry["values"][run], change, facts)


def _entries(value: Json, metric: str, key: str) -> list[tuple[str, Json]]:
    return [(label, found[metric]) for label, found in value["slices"][key].items()]


def score(value: Json | None) -> str:
    """A score with its interval as text."""
    return f"{number(value['value'])} ({interval(value)})" if value and value["value"] is not None else "–"


def moved(change: Json) -> str:
    """A difference with its interval as text."""
    return f"{number(change['value'], True)} ({interval(change, True)})" if change["value"] is not None else "–"


def asked(value: Json) -> str:
    """How many examples are compared, of how many."""
    counts = [run["n"] for run in value["runs"].values()]
    every = all(count == value["shared"] for count in counts)
    of = "all" if every else "of " + ", ".join(f"{run['n']} of {name}" for name, run in value["runs"].items())
    only = f", only {', '.join(value['only'])}" if value["only"] else ""
    return f"{value['shared']} shared examples ({of}{only}), {percent(value['confidence'])} intervals"


# -- terminal ---------------------------------------------------------------------------------------------------------
def to_rich(rows: Sequence[Row], title: str, value: Json | None = None) -> Group:
    """The comparison where there is one, then the table of costs (with all scores where there is none)."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    if value is not None:
        parts.append(_numbers(value, title))
        parts += [Text("p of slices: corrected for their number (Holm)", "dim")] if value["slices"] else []
        for run, found in value["changed"].items():
            told = f"{run}, {found['metric']}: won {found['won']}, lost {found['lost']}, even {found['even']}"
            parts.append(Text(f"{told} (listed on the page)"))
        parts += [Text(f"not compared: {name}: {why}", "dim") for name, why in value["left_out"].items()]
        parts += [_forgetting(value)] if value["forgetting"] else []
        parts += [_settings(value["settings"])] if value["settings"] else []
    named = costs(rows)
    if value is None or named:
        parts.append(_costs(rows, "cost" if value else title, () if value else columns(rows)))
    if value is not None and value["gate"]:
        gate = value["gate"]
        parts.append(Text(f"gate: {gate['verdict']} (exit {gate['exit']})", f"bold {GATE_COLOURS[gate['verdict']]}"))
        parts += [Text(f"  {row['words']}", GATE_COLOURS[row["verdict"]]) for row in gate["rows"]]
    return Group(*parts)


def _new(title: str, first: Sequence[str], numbers: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name in first:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _numbers(value: Json, title: str) -> Table:
    """All metrics, then each key of slices by the first metric."""
    from rich.text import Text

    several = len(value["runs"]) > 2
    other = next(name for name in value["runs"] if name != value["reference"])
    head = ["metric", "run"] if several else ["metric"]
    second = "value" if several else other
    table = _new(f"{title}: {asked(value)}", head, [value["reference"], second, "change", "p", "n"])

    def add(line: Line, indent: str = "") -> None:
        names = [Text(indent + line.label), *([Text(line.run)] if several else [])]
        colour = COLOURS[line.verdict(value["confidence"])]
        change = _narrow(line.change, "", True)
        change.stylize(colour)
        table.add_row(*names, _narrow(line.first), _narrow(line.second, "bold"), change, line.p, str(line.change["n"]))

    for metric in value["metrics"]:
        for line in lines_of(value, metric):
            add(line)
    first = next(iter(value["metrics"]))
    for key in value["slices"]:
        table.add_section()
        table.add_row(Text(f"{first} by {key}", style="dim italic"))
        for line in lines_of(value, first, key):
            add(line, "  ")
    return table


def _narrow(value: Json, style: str = "", signed: bool = False) -> Text:
    """A number and its interval without the blanks that a wide page has."""
    from rich.text import Text

    ends = interval(value, signed).replace(" … ", " to " if signed else "–")
    return Text.assemble((number(value["value"], signed), style), " ", (ends, "dim"))


def _forgetting(value: Json) -> Table:
    """Each run against its own base."""
    from rich.text import Text

    table = _new("forgetting, each against its own base", ["ability", "run"], ["base", "tuned", "change", "p", "n"])
    for ability, runs in value["forgetting"].items():
        for run, found in runs.items():
            base, change = found.get("base") or NOTHING, found.get("difference") or {**NOTHING, "p": None}
            table.add_row(Text(ability), Text(run), _narrow(base), _narrow(found["tuned"], "bold"),
                          _narrow(change, "", True), probability(change["p"]), str(found["tuned"]["n"]))  # fmt: skip
    return table


def _settings(settings: Json) -> Table:
    from rich.text import Text

    table = _new("set differently", ["key", *next(iter(settings.values()))], [])
    for key, values in settings.items():
        table.add_row(Text(key), *(Text(value) for value in values.values()))
    return table


def _costs(rows: Sequence[Row], title: str, metrics: Sequence[str]) -> Table:
    from rich.text import Text

    named = costs(rows)
    table = _new(title, [""], [*named.values(), *metrics])
    for row in rows:
        if row.error:
            table.add_row(Text(row.name), Text(f"failed: {row.error.splitlines()[0]}", "red"))
        else:
            values = [cost(name, row) for name in named] + [score(row.scores.get(name)) for name in metrics]
            table.add_row(Text(row.name), *values)
    return table


# -- Markdown ---------------------------------------------------------------------------------------------------------
def to_markdown(rows: Sequence[Row], title: str, value: Json | None = None) -> str:
    """Tables for documents; of a sweep the base's scores are the last line."""
    lines = [f"# {plain(title)}", ""]
    if value is not None:
        lines += _markdown_comparison(value)
    named, metrics = costs(rows), [] if value else columns(rows)
    if rows and (named or metrics):
        cells = [_cells(row, named, metrics) for row in rows]
        base = common_base([row for row in rows if not row.error]) if value is None else {}
        if base:
            cells.append(["base, untuned", *("–" for _ in named), *(score(base.get(name)) for name in metrics)])
        head = ["", *named.values(), *metrics]
        lines += ["## Cost", ""] if value else []
        lines += table(head, cells, [False, *(True for _ in head[1:])])
    return "\n".join(lines) + "\n"


def _cells(row: Row, named: Json, metrics: Sequence[str]) -> list[str]:
    if row.error:
        return [row.name, f"failed: {row.error}", *("" for _ in [*named, *metrics][1:])]
    return [row.name, *(cost(name, row) for name in named), *(score(row.scores.get(name)) for name in metrics)]


def _markdown_comparison(value: Json) -> list[str]:
    lines = [f"{plain(asked(value))}; reference: {plain(value['reference'])}.", ""]
    if value["gate"]:
        lines += [f"**Gate: {value['gate']['verdict']}**", "", *(f"- {plain(w)}" for w in value["gate"]["words"]), ""]
    every = [line for metric in value["metrics"] for line in lines_of(value, metric)]
    lines += _markdown_lines(every, "metric", value)
    lines += [f"- not compared: {plain(name)}: {plain(why)}" for name, why in value["left_out"].items()]
    for key in value["slices"]:
        for metric in value["metrics"]:
            found = list(lines_of(value, metric, key))
            lines += ["", f"## {plain(metric)} by {plain(key)}", "", *_markdown_lines(found, key, value)]
    for run, found in value["changed"].items():
        lines += ["", f"## {plain(run)}: won {found['won']}, lost {found['lost']} by {plain(found['metric'])}", ""]
        for name in ("losses", "wins"):
            for line in found[name][:LISTED_IN_MARKDOWN]:
                question = plain(line["prompt"][-1]["content"]) if line["prompt"] else ""
                said = f"{plain(str(line['first']))} → {plain(str(line['second']))}"
                lines.append(f"- {name}: {question} **{plain(str(line['reference']))}**: {said}")
    if value["forgetting"]:
        cells = [
            [ability, run, score(found.get("base")), score(found["tuned"]),
             moved(found["difference"]) if "difference" in found else "–", str(found["tuned"]["n"])]
            for ability, runs in value["forgetting"].items() for run, found in runs.items()
        ]  # fmt: skip
        names = ["ability", "run", "base", "tuned", "change", "n"]
        lines += ["", "## Forgetting, each run against its own base", "", *table(names, cells)]
    if value["settings"]:
        head = list(next(iter(value["settings"].values())))
        cells = [[key, *values.values()] for key, values in value["settings"].items()]
        lines += ["", "## Set differently", "", *table(["key", *head], cells)]
    return [*lines, ""]


def _markdown_lines(found: Sequence[Line], head: str, value: Json) -> list[str]:
    names = [head, "run", value["reference"], "value", "change", "p" if head == "metric" else "p (Holm)", "n"]
    cells = [
        [one.label, one.run, score(one.first), score(one.second), moved(one.change), one.p, str(one.change["n"])]
        for one in found
    ]
    return table(names, cells, [False, False, True, True, True, True, True])


# -- the page ---------------------------------------------------------------------------------------------------------
def to_html(rows: Sequence[Row], title: str, value: Json | None = None) -> str:
    """A self-contained page: the comparison, wins and losses, curves laid over each other, each column as bars."""
    good = [row for row in rows if not row.error]
    names, named = columns(good), costs(good)
    bars = [
        {"title": metric, "svg": _bars([(row.name, row.scores[metric]["value"]) for row in good
                                        if row.scores.get(metric, {}).get("value") is not None], number)}
        for metric in names
    ]  # fmt: skip
    for name, label in named.items():
        values = [(row.name, row.costs[name]) for row in good if name in row.costs]
        bars.append({"title": label, "svg": _bars(values, partial(_short, name))})
    drawn = [row for row in good if row.curve]
    again = [" again" * (place >= charts.COLOURS) for place in range(len(drawn))]  # the colours come round: dashed
    curves = [(row.name, charts.colour(place) + again[place], row.curve) for place, row in enumerate(drawn)]
    return render(
        "tuneloop.flows", "comparison.html.jinja", title=title, rows=rows, names=names, costs=named, cost=cost,
        base=common_base(good) if value is None else {}, bars=[bar for bar in bars if bar["svg"]], lines=curves,
        curves=drawing.curves(curves, log=True), value=value, asked=asked(value) if value else "",
        compared=_tables(value) if value else [],
        forgetting=_forgotten(value) if value else [], changed=_changed(value) if value else [],
    )  # fmt: skip


def _tables(value: Json) -> list[Json]:
    """Of all shared examples and of each key of slices: (metric, lines) in a table each."""
    whole = [_drawn(line, value) for metric in value["metrics"] for line in lines_of(value, metric)]
    found: list[Json] = [{"key": None, "tables": [("metric", whole)]}]
    for key in value["slices"]:
        tables = [(metric, [_drawn(one, value) for one in lines_of(value, metric, key)]) for metric in value["metrics"]]
        found.append({"key": key, "tables": tables})
    return found


def _drawn(line: Line, value: Json) -> Json:
    return {**line._asdict(), "p": line.p, "verdict": line.verdict(value["confidence"]),
            "bar": page.bar(line.first, line.second, line.facts)}  # fmt: skip


def _forgotten(value: Json) -> list[Json]:
    rows: list[Json] = []
    for ability, runs in value["forgetting"].items():
        for run, found in runs.items():
            base, change, facts = found.get("base") or NOTHING, found.get("difference"), {"better": found["better"]}
            rows.append({
                "ability": ability, "run": run, "base": base, "tuned": found["tuned"], "change": change,
                "verdict": verdict(change, found["better"], value["confidence"]),
                "p": probability(change["p"]) if change else "–", "bar": page.bar(base, found["tuned"], facts),
            })  # fmt: skip
    return rows


def _changed(value: Json) -> list[Json]:
    """Wins and losses with what differs between both answers."""
    found: list[Json] = []
    for run, changed in value["changed"].items():
        lists = [
            {"name": name, "lines": [_apart(line) for line in changed[name][:LISTED]], "of": changed[count]}
            for name, count in (("losses", "lost"), ("wins", "won"))
        ]
        found.append({**changed, "run": run, "lists": lists})
    return found


def _apart(line: Json) -> Json:
    runs = differences(line["first"] or "", line["second"] or "")
    sides = [[(kind, text) for kind, text in runs if kind != other] for other in ("second", "first")]
    return {**line, "sides": sides, "asked": line["prompt"][-1]["content"] if line["prompt"] else ""}


def _bars(values: Sequence[tuple[str, float]], written: Callable[[float], str]) -> Markup:
    return charts.bars([""], [(name, [value], written(value)) for name, value in values])


def _short(cost: str, value: float) -> str:
    return drawing.short(value / 1e6 if cost == "bytes" else value)
