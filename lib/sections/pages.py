"""What every section's notebook does besides measuring: open the study, show its settings, state
its verdicts. Text that comes from files or models is escaped, and no mathematics."""

import ast
import inspect
import json
import textwrap
from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import pandas as pd
from IPython.display import HTML
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from lib import claims, labels, paths, study
from lib.evidence import ownership
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.experiments.published import PublishedStudy
from lib.sections import figures, finding, section
from lib.sections.section import Section
from lib.sections.tables import by_run, save
from lib.words import of_paper, typeset

LONG = 15  # rows of a table, from which on it is folded
SHOWN = 6  # columns that are named before it is unfolded


def open_study(name: str, **parameters: object) -> OpenStudy:
    """The study, with a section's own parameters laid over its settings.

    `open_study("almanac", distances={"length": 64})`; values of None leave the study's. Behind
    "published/" a name is that of a published run, opened from its evidence. Raises UserError where
    the study's folder holds results of another checkpoint or study."""
    own = study.override(study.load(name.removeprefix(study.PUBLISHED)), **parameters)
    if name.startswith(study.PUBLISHED):
        opened: OpenStudy = PublishedStudy(own)
    else:
        opened = OpenStudy(own)
        ownership.take(own, opened.checkpoint)
    figures.style()
    labels.use([*own.tasks, *own.what_breaks.tasks])
    return opened


def measured(opened: OpenStudy, one: Section) -> dict[str, pd.DataFrame]:
    """See to it that all is measured that a section needs, and write its tables; returns them by
    name, without those that the study does without."""
    if not opened.published:
        measure(opened, [model for group in one.conditions(opened).values() for model in group])
    made = {table.name: table.make(opened) for table in one.tables if table.written}
    for name in (name for name, table in made.items() if table is None and not opened.published):
        # Of when the study did not do without it: verdicts would go on reading it.
        (opened.tables / f"{name}.csv").unlink(missing_ok=True)
    return {name: save(opened, name, table) for name, table in made.items() if table is not None}


def sign(opened: OpenStudy) -> HTML:
    """What kind of model a page is about, and which."""
    one = opened.study
    return HTML(
        f'<p class="sign mathjax_ignore"><strong>{escape(labels.capital(one.sign))}</strong>: '
        f"{escape(one.title)}{', a published run' * opened.published}</p>"
    )


def settings(opened: OpenStudy, *parts: str) -> HTML:
    """The sign, and the effective settings of the named parts of the study, as a folded table."""
    flat = study.effective(opened.study)
    wanted = {"title", "weights", "layers", *parts}
    shown = {
        "title": opened.study.title,
        "layers": opened.n_layers,
        "weights": opened.weights,
        **{key: value for key, value in flat.items() if key.split(".")[0] in wanted},
    }
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code></td><td>{escape(_plain(value))}</td></tr>"
        for key, value in shown.items()
    )
    unhealed = "healing" in parts and opened.study.healing is None
    return HTML(
        sign(opened).data + '<details class="settings mathjax_ignore"><summary>Settings of study '
        f"<code>{escape(opened.study.name)}</code></summary>"
        f"<table><tbody>{rows}</tbody></table></details>"
        + (
            "<p>This study heals nothing: what is said of healing has no numbers here.</p>"
            * unhealed
        )
    )


def _plain(value: object) -> str:
    """A setting as text; of a local path only the last two parts, the rest is one machine's."""
    shown = _shortened(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def _shortened(value: object) -> object:
    if isinstance(value, str) and value.startswith("/"):
        return "…/" + "/".join(value.split("/")[-2:])
    if isinstance(value, dict):
        return {key: _shortened(one) for key, one in value.items()}
    return [_shortened(one) for one in value] if isinstance(value, list) else value


def in_short(opened: OpenStudy, one: Section, made: dict[str, pd.DataFrame]) -> HTML:
    """What a section found, in a sentence or two, and the verdicts on its claims, which lead to
    their cards; of a section that shows every claim there is, no verdicts."""
    says = finding.says(opened, one, made)
    ids = [] if one.claims == section.every_claim() else list(one.claims)
    found = claims.verdicts(tables_for(opened), ids) if ids else pd.DataFrame()
    parts = [f'<p class="finding"><strong>In short.</strong> {escape(typeset(says))}</p>'] * bool(
        says
    )
    if badges := " ".join(_linked_badge(row) for row in found.itertuples()):
        parts.append(f'<p class="badges">{badges}</p>')
    joined = "".join(parts)
    return HTML(f'<div class="in-short mathjax_ignore">{joined}</div>' * bool(parts))


def _linked_badge(row: tuple) -> str:
    return (
        f'<a href="#{_anchor(row)}" title="{escape(row.statement)}">'
        f'<span class="claim-number">{_kind(row)}\u00a0{row.claim}</span> {badge(row.verdict)}</a>'
    )


def essence(*functions: Callable) -> HTML:
    """The source of functions as it stands in lib, under the name of its file, so that the page
    shows what runs. The colours are the theme's."""
    parts = []
    for file, group in groupby(functions, inspect.getsourcefile):
        source = "\n".join(_source(one) for function in group for one in _with_helpers(function))
        code = highlight(source, PythonLexer(), HtmlFormatter(cssclass="highlight"))
        where = Path(file).relative_to(paths.ROOT).as_posix()
        parts.append(f'<div class="essence"><p><code>{escape(where)}</code></p>{code}</div>')
    return HTML("".join(parts))


def _with_helpers(function: Callable) -> list[Callable]:
    """A function, and the private functions of its file that it calls."""
    private = [name for name in function.__code__.co_names if name.startswith("_")]
    helpers = [function.__globals__.get(name) for name in private]
    return [function, *filter(inspect.isfunction, helpers)]


def _source(function: Callable) -> str:
    """A function's lines, with no more of its docstring than the first paragraph."""
    source = textwrap.dedent(inspect.getsource(function))
    first = ast.get_source_segment(source, ast.parse(source).body[0].body[0])
    paragraph, *more = first.split("\n\n")
    cut = first.startswith('"""') and more
    return source.replace(first, f'{paragraph}"""', 1) if cut else source


def tables(opened: OpenStudy) -> claims.Tables:
    """For verdicts that are kept: what they say follows from the tables alone."""
    return claims.Tables(opened.tables)


def tables_for(opened: OpenStudy) -> claims.Tables:
    """For people: what is absent says what helps, where something does."""
    return tables(opened) if opened.published else tables_of(opened.study.name)


def tables_of(name: str) -> claims.Tables:
    """For people: of tables of a study that are not there, which section to run."""

    def absent(table: str) -> str:
        stem = paths.sections()[section.writers()[table]].stem
        if paths.executed(name, f"{stem}.ipynb").exists():
            return f"this study does without {table}.csv"
        number = stem.partition("_")[0]
        first = f"section {number if number.isdigit() else stem}"
        return f"run {first} first, which writes {table}.csv"

    return claims.Tables(paths.tables(name), absent)


def verdicts(opened: OpenStudy, ids: Sequence[str]) -> HTML:
    """A card per claim: what the paper says, the verdict on this study, the numbers, the rule. Of
    several papers each has its own heading."""
    found = claims.verdicts(tables_for(opened), list(ids))
    parts = []
    for name, rows in found.groupby("paper", sort=False):
        if found["paper"].nunique() > 1:
            parts.append(heading(name))
        parts.append(cards(rows))
    return HTML("".join(parts))


def cards(rows: pd.DataFrame) -> str:
    """Of claims of one paper."""
    cards = "".join(_card(row) for row in rows.itertuples())
    return f'<div class="claims mathjax_ignore">{cards}</div>'


def heading(paper: str, level: int = 3) -> str:
    """Of a paper's claims, at a level of the page's headings."""
    found = claims.papers()[paper]
    title = escape(found.title)
    if found.arxiv:
        title = f'<a href="https://arxiv.org/abs/{found.arxiv}">{title}</a>'
    return f'<h{level} class="paper">{title} <span>{escape(found.cite)}</span></h{level}>'


def _card(row: tuple) -> str:
    claim = claims.find(f"{row.paper}-{row.claim}")
    return (
        f'<div class="claim" id="{_anchor(row)}"><p class="claim-head">'
        f'<span class="claim-number">{_kind(row)} {row.claim}</span> {badge(row.verdict)} '
        f'<span class="claim-where">{escape(typeset(of_paper(row.where)))}</span></p>'
        f'<p class="claim-statement">{escape(row.statement)}</p>'
        f'<p class="claim-reason">{reason(row)}</p>'
        f"<details><summary>Rule, and what would change the verdict</summary>"
        f"<p>{escape(typeset(row.rule))}</p>"
        f"<p><strong>Undecided where:</strong> {escape(typeset(claim.undecided))}</p>"
        f"<p><strong>To the edge of each condition:</strong> "
        f"{escape(typeset(labels.spelt(row.margins)))}.</p></details></div>"
    )


def _anchor(row: tuple) -> str:
    return f"claim-{escape(row.paper)}-{row.claim}"


def _kind(row: tuple) -> str:
    return "Question" if claims.find(f"{row.paper}-{row.claim}").question else "Claim"


def reason(row: tuple) -> str:
    """The numbers, and beside them what is asked of them."""
    said = f"{escape(typeset(labels.capital(labels.spelt(row.reason))))}."
    asked = (
        f' <span class="claim-asked">Asked for: {escape(typeset(labels.spelt(row.asked)))}.</span>'
    )
    return said + asked * (row.asked != "–")


def badge(verdict: str, count: int | None = None) -> str:
    """A verdict in its colours, with how often it came out."""
    words = f"answered {verdict}" if verdict in ("yes", "no", "open") else verdict
    words = words if count is None else f"{count} {words}"
    return f'<span class="verdict verdict-{verdict.replace(" ", "-")}">{escape(words)}</span>'


def badges(verdicts: pd.Series) -> str:
    """How often each verdict came out."""
    counts = verdicts.value_counts()
    order = dict.fromkeys([*claims.VERDICTS, *claims.ANSWERS.values()])
    return " ".join(badge(one, int(counts[one])) for one in order if one in counts)


def keep_verdicts(opened: OpenStudy) -> pd.DataFrame:
    """The verdicts on all claims; writes verdicts.csv."""
    return save(opened, "verdicts", claims.verdicts(tables(opened)))


def count_verdicts(opened: OpenStudy) -> HTML:
    """How many claims of each paper came out how; writes verdicts.csv."""
    lines = []
    for name, rows in keep_verdicts(opened).groupby("paper", sort=False):
        cite = escape(claims.papers()[name].cite.partition(",")[0])
        counts = badges(rows["verdict"])
        lines.append(f'<p class="verdict-counts">Of {len(rows)} claims of {cite}: {counts}</p>')
    return HTML("".join(lines))


def verdicts_by_run(opened: OpenStudy) -> pd.DataFrame:
    """A row per claim, a column per run: this study, then its reference runs."""
    own = claims.verdicts(tables(opened))
    found = by_run(opened, "verdicts", own)
    keys = ["paper", "claim"]
    wide = found.pivot(index=keys, columns="run", values="verdict")
    wide = wide[list(dict.fromkeys(found["run"]))]
    return with_statements(wide, own.set_index(keys)["statement"])


def with_statements(wide: pd.DataFrame, statements: pd.Series) -> pd.DataFrame:
    """Verdicts by run, with what is claimed before them; a run may be called as any column is."""
    wide.insert(0, "statement", statements, allow_duplicates=True)
    return wide.rename_axis(columns=None).reset_index(allow_duplicates=True)


def rules_table() -> HTML:
    """Of every paper each claim with where it is made, the tables read, the rule, what leaves it
    undecided, and what makes it fail."""
    parts = []
    for name, paper in claims.papers().items():
        rows = pd.DataFrame(
            {
                "claim": f"{claim.number}. {claim.statement} ({typeset(of_paper(claim.where))})",
                "rule": typeset(f"{claim.rule} Reads: {', '.join(claim.tables)}."),
                "undecided where": typeset(claim.undecided),
                "fails if": claim.fails,
            }
            for claim in paper.claims
        )
        parts.append(heading(name) + show(rows, words=True).data)
    return HTML("".join(parts))


def introduce(opened: OpenStudy) -> HTML:
    """What this book is about, and what about half of it looks like when it is cut out."""
    about = f", {opened.study.about}" if opened.study.about else ""
    n = max(1, opened.n_layers // 2)
    dropped = opened.chosen(opened.strategies[0], n)
    return HTML(
        '<p class="mathjax_ignore">This copy is about '
        f"<strong>{escape(opened.study.title)}</strong>{escape(about)}: "
        f"{opened.n_layers} layers, a vocabulary of {opened.vocab_size:,} tokens, evaluated in "
        f"{opened.weights}. To take out {n} layers, for example, its main strategy, "
        f"<em>{escape(opened.strategies[0])}</em>, says: "
        f"<em>{dropped.in_words(opened.n_layers)}</em>.</p>"
    )


def differences(compared: pd.DataFrame, behind: bool = False) -> HTML:
    """Paired differences, in points of accuracy. behind: a figure of them, as in `show`."""
    rows = pd.DataFrame(
        {
            "task": compared["task"],
            **({"shots": compared["shots"]} if "varied" not in compared else {}),
            **({"models": compared["models"]} if "models" in compared else {}),
            "compared": compared["compared"] + " − " + compared["base"],
            "points": [_points(r.difference, r.stderr) for r in compared.itertuples()],
            "p": [f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in compared["p"]],
            "prunings × questions": [
                f"{r.prunings} × {r.n_questions}" for r in compared.itertuples()
            ],
        }
    )
    return show(rows, behind=behind)


def _points(difference: float, stderr: float) -> str:
    return typeset(f"{100 * difference:+.1f} ± {100 * stderr:.1f}")


def key_numbers(values: dict[str, str]) -> HTML:
    """Big numbers with small labels, side by side."""
    cards = "".join(
        f'<div class="key-number"><span class="value">{escape(value)}</span>'
        f'<span class="label">{escape(label)}</span></div>'
        for label, value in values.items()
    )
    return HTML(f'<div class="key-numbers mathjax_ignore">{cards}</div>')


def show(table: pd.DataFrame, digits: int = 3, words: bool = False, behind: bool = False) -> HTML:
    """A table for reading: rounded, without an index, empty where a value is missing, tasks by
    their labels. words: of sentences. behind: a figure, whose numbers it has; this is folded, as
    all long ones of numbers are."""
    table = table.map(lambda value: labels.spelt(value) if isinstance(value, str) else value)
    # na_rep leaves <NA>
    absent = {name: "" for name, kind in table.dtypes.items() if kind == "Int64"}
    table = table.astype(dict.fromkeys(absent, object)).fillna(absent)
    with pd.option_context("display.max_colwidth", None):
        html = table.to_html(
            index=False,
            na_rep="",
            float_format=lambda value: typeset(f"{value:.{digits}f}"),
            border=0,
        )
    html = html.replace("<th>", '<th scope="col">')
    columns = [*map(str, table.columns)]
    named = escape(f"Table of {', '.join(columns)}")  # for those who hear the page
    some = ", ".join(columns[:SHOWN] + ["…"] * (len(columns) > SHOWN))
    box = (
        f'<div class="table-box mathjax_ignore{" words" if words else ""}" tabindex="0" '
        f'role="region" aria-label="{named}">{html}</div>'
    )
    if not behind and (words or len(table) <= LONG):
        return HTML(box)
    return HTML(
        '<details class="table mathjax_ignore"><summary>'
        f"Table of {len(table)} rows: {escape(some)}</summary>{box}</details>"
    )
