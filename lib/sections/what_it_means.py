"""What the verdicts of all runs mean: for someone who wants a smaller model, who trains models, or
who wants to understand them. No sentence is said that no verdict decides."""

import json
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

import pandas as pd
from IPython.display import HTML

from lib import claims, paths
from lib.claims.rules.judging import ANSWERS, NOT_REPRODUCED, PARTLY, REPRODUCED
from lib.experiments.opened import OpenStudy
from lib.sections import other_runs, pages, verdicts
from lib.sections.section import Section, Table, every_claim

YES = (REPRODUCED, ANSWERS[REPRODUCED])
NO = (NOT_REPRODUCED, ANSWERS[NOT_REPRODUCED])
DECIDED = (*YES, *NO, PARTLY)


class Meaning(NamedTuple):
    """holds: what to make of a claim where it is reproduced, or a question's answer is yes;
    fails: where it is not."""

    reader: str
    claim: str
    holds: str
    fails: str


SMALLER = "For someone who wants a smaller model"
TRAINS = "For someone who trains models"
UNDERSTANDS = "For someone who wants to understand them"
MEANINGS = tuple(
    Meaning(reader, *said)
    for reader, of in {
        SMALLER: (
            (
                "gromov-1",
                "Some layers can go for next to nothing: drop up to a fifth of them, and heal.",
                "No layers go for free: dropping a fifth already does harm, healed or not.",
            ),
            (
                "gromov-8",
                "Without healing, choose the most similar block, not simply the deepest layers.",
                "Without healing, the deepest layers are as good a choice as the most similar.",
            ),
            (
                "gromov-9",
                "With healing, dropping the deepest layers but the last is as good as measuring.",
                "Healing does not make up for a bad choice of layers: measure first.",
            ),
            (
                "lu-1",
                "For a quarter of the layers, drop the deepest, the last one included.",
                "For a quarter of the layers, dropping the deepest with the last one is not best.",
            ),
            (
                "lu-4",
                "Choosing needs no data: a greedy search over text does no better.",
                "A greedy search over text finds better layers than a rule without data.",
            ),
            (
                "lu-10",
                "Whether the last layer may go depends on how the rest is trained: decide on the "
                "recipe first.",
                "Whether the last layer may go does not depend on how the rest is trained.",
            ),
            (
                "lu-15",
                "To heal, train the head and the last layers rather than adapters.",
                "To heal, adapters do as well as training the head and the last layers, each with "
                "its own learning rate.",
            ),
            (
                "lu-22",
                "Drop all layers at once: steps bring nothing for the same training.",
                "Drop layers step by step: for the same training that is better.",
            ),
            (
                "lu-29",
                "Look at what you heal on: it changes what comes out.",
                "What you heal on matters little.",
            ),
            (
                "lu-31",
                "Do not heal on exam questions: what they do not ask is lost.",
                "Healing on exam questions does no harm to what they do not ask.",
            ),
            (
                "lu-34",
                "Stop well before half: with half of the layers gone the model is broken.",
                "Half of the layers can go, and the model still does something.",
            ),
            (
                "gromov-13",
                "Memory and time fall as layers do: what you drop is what you save.",
                "Memory and time fall less than the number of layers.",
            ),
        ),
        TRAINS: (
            (
                "gromov-6",
                "Deep layers change the stream less than shallow ones: much of the depth is hardly "
                "used.",
                "The deep layers are not the most alike: measure which layers change the stream "
                "least.",
            ),
            (
                "gromov-7",
                "The last layer does something that no other does.",
                "The last layer is nothing special.",
            ),
            (
                "gromov-16",
                "The larger a model, the larger the share of its layers that it can spare.",
                "A larger model cannot spare a larger share of its layers.",
            ),
            (
                "lu-37",
                "To prune and heal is better than to train a model of that size from scratch.",
                "A model of that size, trained from scratch, is better than a pruned one.",
            ),
            (
                "lu-41",
                "Layers with small gradients are those that matter least.",
                "How large a layer's gradients are does not tell how much it matters.",
            ),
        ),
        UNDERSTANDS: (
            (
                "gromov-2",
                "Knowledge is lost at once, not layer by layer: there is a critical fraction.",
                "Knowledge is lost bit by bit, and no fraction is critical.",
            ),
            (
                "gromov-5",
                "The loss does not show when answers collapse: it grows evenly.",
                "The loss shows when answers collapse: it does not grow evenly.",
            ),
            (
                "lu-33",
                "Knowledge goes before reading.",
                "Knowledge does not go before reading.",
            ),
            (
                "lu-35",
                "What has to be written goes before what has to be chosen.",
                "Writing an answer does not go before choosing one.",
            ),
            (
                "lu-11",
                "Each strategy sees layers of its own: there is no one set to drop.",
                "Strategies that look at different things still choose much the same layers.",
            ),
            (
                "lu-28",
                "What layers are scored on matters more than how they are searched for.",
                "What layers are scored on does not matter more than the search.",
            ),
            (
                "lu-25",
                "Two ways to the same layers end in different representations.",
                "Two ways to the same layers end in the same representations.",
            ),
        ),
    }.items()
    for said in of
)


def _runs(opened: OpenStudy) -> Iterator[tuple[str, pd.DataFrame]]:
    """By title the verdicts of this study, and of all others that no run is checked against:
    controls, such as untrained models, say nothing about claims."""
    yield opened.study.title, claims.verdicts(pages.tables(opened))
    apart = {*opened.study.controls.studies, *opened.study.controls.from_scratch}
    for note in sorted(paths.published("").glob("*/study.json")):
        controls = json.loads(note.read_text("utf-8"))["settings"].get("controls", {})
        apart |= {*controls.get("studies", []), *controls.get("from_scratch", [])}
    for run in other_runs.others(opened.study.name, told=False):
        if run.name not in apart:
            yield run.title, run.tables["verdicts"]


def decided(opened: OpenStudy) -> pd.DataFrame:
    """What runs say of each claim that means something, a row per run, claim and reader."""
    rows = []
    for run, found in _runs(opened):
        of = {f"{one.paper}-{one.claim}": one.verdict for one in found.itertuples()}
        for one in MEANINGS:
            if one.claim in of:
                paper, _, number = one.claim.rpartition("-")
                row = {"reader": one.reader, "paper": paper, "claim": int(number)}
                rows.append(row | {"run": run, "verdict": of[one.claim]})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sentences(table: pd.DataFrame, reader: str) -> HTML:
    """What follows for one reader, each sentence with the verdicts that it follows from; then what
    nothing follows from yet."""
    said, left = [], []
    for one in MEANINGS:
        if one.reader != reader:
            continue
        paper, _, number = one.claim.rpartition("-")
        of = table[(table["reader"] == reader) & (table["paper"] == paper)]
        of = of[of["claim"] == int(number)]
        found = of[of["verdict"].isin(DECIDED)]
        words = _words(one, [*found["verdict"]])
        runs = "".join(
            f"<li>{escape(row.run)}: {pages.badge(row.verdict)}</li>"
            for row in (of if found.empty else found).itertuples()
        )
        link = f'<a href="{verdicts.card_link(one.claim)}">{escape(_cited(paper, number))}</a>'
        (said if words else left).append(
            f'<div class="meaning"><p>{escape(words or claims.find(one.claim).statement)} {link}'
            f"</p><ul>{runs}</ul></div>"
        )
    more = f"<details><summary>Not decided yet ({len(left)})</summary>{''.join(left)}</details>"
    nothing = "<p>No run here has decided anything about this.</p>"
    shown = "".join(said) or nothing
    return HTML(f'<div class="meanings mathjax_ignore">{shown}{more if left else ""}</div>')


def _cited(paper: str, number: str) -> str:
    return f"{claims.papers()[paper].cite.partition(',')[0]}, {number}"


def _words(one: Meaning, found: list[str]) -> str:
    """Empty where nothing is decided."""
    if not found:
        return ""
    alone = "On one model: " if len(found) == 1 else ""
    if {*found} <= {*YES}:
        return alone + one.holds
    if {*found} <= {*NO}:
        return alone + one.fails
    return f"Not everywhere, or not in full: {one.holds}"


COLUMNS = {
    "reader": "for whom it means something",
    "paper": "the paper that says it, by the name of its file in lib/claims/",
    "claim": "its number",
    "run": "title of the run",
    "verdict": "on that run",
}
SECTION = Section(
    tables=(
        Table("what_it_means", decided, "a claim, a reader and a run", COLUMNS, published=False),
    ),
    claims=every_claim(),
    runs=True,
)
