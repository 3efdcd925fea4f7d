"""What sections say at their heads: numbers stand in their tables, and words follow from them."""

import json
import math
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import labels, paths, study
from lib.claims.rules.reading import read
from lib.experiments.opened import OpenStudy
from lib.sections import finding, pages, section
from lib.sections.section import Section, Table

RUNS = ["almanac", "smollm2-135m-instruct-public"]
SAYING = [name for name in section.names() if section.load(name).in_short]
PROSE = ["at_a_glance", "what_it_means", "verdicts"]  # pages that are their own summary


@pytest.fixture(scope="module")
def opened() -> OpenStudy:
    return OpenStudy(study.load("almanac"))


def made(name: str, run: str = "almanac") -> finding.Made:
    """The published tables of a section."""
    folder = paths.published(run) / "tables"
    files = {one.name: folder / f"{one.name}.csv" for one in section.load(name).tables}
    return {key: read(file) for key, file in files.items() if file.exists()}


def says(opened: OpenStudy, name: str, tables: finding.Made) -> str:
    return finding.says(opened, section.load(name), tables)


def test_every_section_but_those_of_prose_says_what_it_found() -> None:
    assert set(section.names()) - set(SAYING) == set(PROSE)


@pytest.mark.parametrize("name", SAYING)
@pytest.mark.parametrize("run", RUNS)
def test_sentences_are_short_and_say_nothing_that_is_not_known(
    opened: OpenStudy, name: str, run: str
) -> None:
    def absent(table: pd.DataFrame) -> pd.DataFrame:
        known = ("n", "fraction", "shots", "layer", "n_questions", "start", "stop", "draw")
        return table.assign(
            **{key: math.nan for key in table.select_dtypes("number") if key not in known}
        )

    def unhealed(table: pd.DataFrame) -> pd.DataFrame:
        for column in {"state", "models"} & {*table}:
            table = table[table[column] != "healed"]
        return table

    def of_one_task(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["task"].isin(table["task"].head(1))] if "task" in table else table

    whole = made(name, run)
    changes: list[Callable] = [lambda table: table, absent, unhealed, of_one_task]
    changes += [lambda table: table.head(1), lambda table: table.tail(1), lambda table: table[:0]]
    cases = [{key: change(table) for key, table in whole.items()} for change in changes]
    cases += [{key: table for key, table in whole.items() if key != gone} for gone in whole]
    for tables in [*cases, {}]:
        text = says(opened, name, tables)
        assert text.endswith(".") and text[0].isupper() and len(text.split()) <= 60, text
        assert not re.search(r"\b(nan|None|inf)\b", text), text
    assert says(opened, name, {}) == finding.WITHOUT


def percent(value: float) -> str:
    return f"{100 * value:.0f}"


def size(row: pd.Series) -> str:
    """A difference in accuracy as a sentence has it."""
    return f"{100 * abs(row['difference']):.1f} ± {100 * row['stderr']:.1f} points"


def test_numbers_of_distances(opened: OpenStudy) -> None:
    tables = made("angular_distances")
    text = says(opened, "angular_distances", tables)
    assert text.startswith("Deep layers are more alike than shallow ones, but no more so than")
    block = tables["optimal_blocks"].query("n == 4").iloc[0]
    assert f"layers {block['start']:.0f} to {block['stop'] - 1:.0f}." in text

    def contrast(table: pd.DataFrame) -> float:
        table = table[(table["n"] <= 8) & (table["start"] + table["n"] < 16)]
        middle = table["start"] + table["n"] / 2
        return table["distance"][middle < 8].mean() / table["distance"][middle >= 8].mean()

    for key in ("angular_distances", "untrained_distances"):
        assert f"{contrast(tables[key]):.2f} ± " in text
    turned = tables["angular_distances"].assign(
        distance=lambda t: t["distance"].max() + t["distance"].min() - t["distance"]
    )
    text = says(opened, "angular_distances", tables | {"angular_distances": turned})
    assert text.startswith("Deep layers are less alike than shallow ones: ")
    noisy = tables["angular_distances"].assign(stderr=1.0)
    text = says(opened, "angular_distances", tables | {"angular_distances": noisy})
    assert text.startswith("Deep layers and shallow ones are about as alike: ")


def test_numbers_of_questions(opened: OpenStudy) -> None:
    tables = made("qa_transitions")
    text = says(opened, "qa_transitions", tables)
    curves = tables["transitions"].query("state == 'healed' and strategy == 'similarity'")
    for row in (curves.loc[curves["fraction"].idxmin()], curves.loc[curves["fraction"].idxmax()]):
        ends = f"{percent(row['fraction'])}% [{percent(row['low'])}, {percent(row['high'])}]"
        assert f"{labels.asked(row['task'], row['shots'])}, once {ends}" in text
    assert (
        text.startswith("Healed, half of ") and f"{curves['fraction'].notna().sum()} tasks" in text
    )
    low = tables["qa"].assign(accuracy=lambda t: t["chance"])
    text = says(opened, "qa_transitions", tables | {"qa": low})
    assert text.startswith("There is nothing to lose here: the unpruned model is not above chance")


def test_a_curve_that_does_not_fall_is_not_said_to(opened: OpenStudy) -> None:
    tables = made("qa_transitions", RUNS[1])
    text = says(opened, "qa_transitions", tables)
    assert "up to 30% of its layers dropped" in text and "none of 4 tasks" in text
    qa = tables["qa"]
    fallen = qa.assign(accuracy=qa["accuracy"].where(qa["n"] == 0, qa["chance"]))
    assert "on all 4 tasks" in says(opened, "qa_transitions", tables | {"qa": fallen})


def test_numbers_of_the_loss(opened: OpenStudy) -> None:
    table = made("loss")["loss"]
    half = table.query("n == 8 and strategy == 'similarity'").set_index("state")
    whole = table.query("n == 0 and state == 'unhealed'").iloc[0]
    error = half["stderr"] * half["normalized_loss"] / half["loss"]
    found = {
        state: f"{half['normalized_loss'][state]:.3f} ± {error[state]:.3f}" for state in half.index
    }
    text = says(opened, "loss", {"loss": table})
    assert text.startswith(
        f"With 50% of the layers dropped the loss goes from {whole['normalized_loss']:.3f}"
    )
    assert f"to {found['unhealed']} of ln V" in text and "200 documents" in text
    assert text.endswith(f"; healing brings it down to {found['healed']}.")
    worse = table.assign(
        normalized_loss=table["normalized_loss"].where(table["state"] != "healed", 0.9)
    )
    assert "; healing brings it up to 0.900 ± " in says(opened, "loss", {"loss": worse})
    noisy = {"loss": table.assign(stderr=5.0)}
    assert says(opened, "loss", noisy).endswith("which cannot be told from that.")
    unhealed = {"loss": table[table["state"] != "healed"]}
    assert says(opened, "loss", unhealed).endswith("; nothing was healed.")


def test_who_leads_follows_from_differences_and_errors(opened: OpenStudy) -> None:
    table = made("strategies")["strategies_compared"]
    text = says(opened, "strategies", {"strategies_compared": table})
    most = table.query("models == 'healed' and task == 'almanac_reading'").iloc[0]
    assert f"similarity leads simple on 1 of 5 tasks, by {size(most)} on 200 questions" in text
    assert text.endswith("neither leads on the other 4 tasks.")
    turned = table.assign(difference=-table["difference"])
    text = says(opened, "strategies", {"strategies_compared": turned})
    assert f"simple leads similarity on 1 of 5 tasks, by {size(most)}" in text
    noisy = table.assign(stderr=1.0)
    text = says(opened, "strategies", {"strategies_compared": noisy})
    assert text.startswith("Healed, neither similarity nor simple leads on any of 5 tasks")
    unhealed = table[table["models"] == "unhealed"]
    text = says(opened, "strategies", {"strategies_compared": unhealed})
    assert text.startswith("Unhealed, as nothing was healed, similarity leads simple on 1 of 5")
    (text,) = {says(opened, "strategies", {"strategies_compared": table.head(1)})}
    assert "neither similarity nor simple leads (-2.4 ± 2.2 points) on 200 questions" in text


def test_ranks_and_seeds(opened: OpenStudy) -> None:
    ranks = made("lora_rank")["ranks_compared"]
    most = ranks.query("compared == 'rank 32' and task == 'almanac_reading'").iloc[0]
    assert f"rank 32 leads rank 2 on 1 of 5 tasks, by {size(most)}" in says(
        opened, "lora_rank", {"ranks_compared": ranks}
    )
    seeds = made("healing_seeds")["healing_seeds_compared"]
    most = seeds.loc[seeds["difference"].abs().idxmax()]
    clear = (seeds["difference"].abs() > 2 * seeds["stderr"]).sum()
    text = says(opened, "healing_seeds", {"healing_seeds_compared": seeds})
    assert (
        f"at most {size(most)}, on {most['n_questions']} questions of {labels.of(most['task'])}"
        in text
    )
    assert f"{clear} of {len(seeds)} differences can be told from zero" in text


def test_prompts(opened: OpenStudy) -> None:
    table = made("prompts")["prompts_compared"]
    text = says(opened, "prompts", {"prompts_compared": table})
    healed = table[table["models"] == "healed"]
    for varied, words in (("order", "other orders"), ("shots", "other numbers")):
        rows = healed[healed["varied"] == varied]
        most = rows.loc[rows["difference"].abs().idxmax()]
        assert re.search(rf"{words}( of the examples move accuracy)? by at most {size(most)}", text)


def test_texts(opened: OpenStudy) -> None:
    blocks = made("other_texts")["text_blocks"]
    text = says(opened, "other_texts", {"text_blocks": blocks})
    starts = blocks.pivot(index="n", columns="text", values="start")
    differ = {name: (starts[name] != starts["almanac text"]).sum() for name in starts}
    assert f"another one at {max(differ.values())} of 15 sizes" in text
    worst = blocks.loc[blocks["regret"].idxmax()]
    assert f"is {worst['regret']:.3f} ± {worst['regret_stderr']:.3f} π farther" in text
    same = blocks.assign(start=blocks["n"], regret=0.0)
    assert says(opened, "other_texts", {"text_blocks": same}) == (
        "All texts choose the same block as almanac text, at all 15 sizes."
    )


def test_savings(opened: OpenStudy) -> None:
    cost = made("what_it_saves")["cost"]
    own = cost[cost["weights"] == "float32"]
    slope, start = np.polyfit(own["fraction"], own["bytes"], 1)
    text = says(opened, "what_it_saves", {"cost": cost})
    assert text.startswith(
        f"Every tenth of the layers that goes saves {-10 * slope / start:.1f}% of"
    )
    slope, start = np.polyfit(own["fraction"], own["write_seconds"], 1)
    assert f" and {-10 * slope / start:.1f} ± " in text and "7 sizes, 15 repeats" in text


def test_answers_kept(opened: OpenStudy) -> None:
    table = made("what_it_writes")["questions"]
    rows = table.query("models == 'healed' and fraction == 0.25")
    share = rows["kept"] / (rows["kept"] + rows["lost"])
    text = says(opened, "what_it_writes", {"questions": table})
    for row in (rows.loc[share.idxmin()], rows.loc[share.idxmax()]):
        assert f"{percent(row['kept'] / (row['kept'] + row['lost']))}% [" in text
        assert (
            f"of {row['kept'] + row['lost']:.0f} on {labels.asked(row['task'], row['shots'])}"
            in text
        )
    assert finding.wilson(0, 4)[0] == 0 and finding.wilson(0, 4)[2] == pytest.approx(0.5)  # 4/(4+4)


def test_a_teacher(opened: OpenStudy) -> None:
    table = made("teacher")["teacher"]
    text = says(opened, "teacher", {"teacher": table})
    of = table.groupby(["metric", "task", "fraction", "shots", "way"], dropna=False)["value"]
    mean, error = of.mean().unstack("way"), of.sem().unstack("way")
    pair = ["with a teacher", "plain, equal time"]
    gain = mean[pair[0]] - mean[pair[1]]
    clear = gain[gain.abs() > 2 * np.hypot(error[pair[0]], error[pair[1]])]
    worse = (clear["accuracy"] < 0).sum()
    assert f"accuracy is better in none of 10 comparisons and worse in {worse};" in text
    taught = table["way"] == pair[0]
    better = table.assign(value=table["value"] + 0.5 * (taught & (table["metric"] == "accuracy")))
    assert "accuracy is better in all 10 comparisons" in says(
        opened, "teacher", {"teacher": better}
    )
    single = table[table["seed"] == 0]
    assert says(opened, "teacher", {"teacher": single}).startswith("With one seed each, nothing")


def test_the_best_and_who_cannot_be_told_from_it(opened: OpenStudy) -> None:
    tables = made("which_layers")
    models, compared = tables["which_layers"], tables["layers_compared"]
    own = models.query("state == 'unhealed' and n == 4 and draw.isna()")
    top = own.loc[own["accuracy"].idxmax()]
    text = says(opened, "which_layers", tables)
    assert f"{top['strategy']} is the best of {len(own)} strategies with" in text
    assert f" {100 * top['accuracy']:.1f} ± {100 * top['stderr']:.1f}% right answers (400" in text
    drawn = models.query("state == 'unhealed' and n == 4 and draw.notna()")["accuracy"]
    assert f"drawn at random reach {percent(drawn.mean())}% (20 draws)" in text
    clear = compared.assign(stderr=1e-6, difference=0.1)
    text = says(opened, "which_layers", tables | {"layers_compared": clear})
    assert f", and leads all {len(own) - 1} others;" in text

    tables = made("what_to_train")
    text = says(opened, "what_to_train", tables)
    healed = tables["what_to_train"].query("state == 'healed'")
    top = healed.loc[healed["accuracy"].idxmax()]
    assert f"{top['healing']} repairs most, from 63% to {100 * top['accuracy']:.1f} ± " in text
    assert text.endswith("cannot be told from it.")


def test_steps_and_the_last_layer(opened: OpenStudy) -> None:
    table = made("step_by_step")["steps_compared"]
    once, longer = table[table["role"] == "all"].iloc
    text = says(opened, "step_by_step", {"steps_compared": table})
    assert f"one step, pruning in steps leads pruning at once by {size(once)}" in text
    assert (
        f"leads ({100 * longer['difference']:+.1f} ± {100 * longer['stderr']:.1f} points)" in text
    )
    tables = made("last_layer")
    rows = tables["last_layer"].query("role == 'all'")
    clear = rows[rows["difference"] > 2 * rows["stderr"]]
    text = says(opened, "last_layer", tables)
    most = clear.loc[clear["difference"].idxmax()]
    assert f"in {len(clear)} of {len(rows)} comparisons, by up to {size(most)}" in text
    changes = tables["last_layer_interaction"]
    sure = changes.assign(interaction=1.0, stderr=0.1)
    text = says(opened, "last_layer", tables | {"last_layer_interaction": sure})
    assert text.endswith("the gains differ in all 6 pairs.")


def test_samples_and_data(opened: OpenStudy) -> None:
    tables = made("on_what")
    text = says(opened, "on_what", tables)
    for one in tables["calibration_sizes"].query("windows == 10").itertuples():
        assert f"{one.jaccard:.2f} by {one.strategy}" in text
    row = tables["data_compared"].query("role == 'all'").iloc[0]
    assert f"({100 * row['difference']:+.1f} ± {100 * row['stderr']:.1f} points)" in text
    clear = tables["data_compared"].assign(stderr=0.01)
    text = says(opened, "on_what", tables | {"data_compared": clear})
    assert "healing text leads lessons by 4.5 ± 1.0 points on 400 questions." in text


def test_layers_and_abilities(opened: OpenStudy) -> None:
    tables = made("what_layers_do")
    text = says(opened, "what_layers_do", tables)
    costs = tables["layer_costs"]
    most = costs.loc[costs["loss"].idxmax()]
    assert f"layer {most['layer']:.0f} is missed most: without it the loss rises by" in text
    assert f"{most['loss']:.2f} ± {most['loss_stderr']:.2f} of ln V" in text
    found = tables["layer_predictors"].query("cost == 'loss'")
    best = found.loc[found["rho"].idxmax()]
    assert f"by {best['measure']}, with a rank correlation of {best['rho']:.2f} [" in text
    assert f"{(found['low'] > 0).sum()} of {len(found)} correlations" in text

    tables = made("what_breaks")
    half = tables["half_lost"].query("models == 'healed'").set_index("ability")
    text = says(opened, "what_breaks", tables)
    for name in ("written sums", "reading"):
        at, low, high = (percent(half.loc[name, key]) for key in ("fraction", "low", "high"))
        assert f"half of {name} is lost once {at}% [{low}, {high}]" in text
    assert text.endswith(
        "Whether written sums or arithmetic goes first of 4 abilities is undecided."
    )
    later = tables["half_lost"].assign(
        low=lambda t: t["low"].where(t["ability"] != "arithmetic", 0.2)
    )
    text = says(opened, "what_breaks", tables | {"half_lost": later})
    assert text.endswith("Of 4 abilities written sums goes first.")


def test_repairs_and_ways(opened: OpenStudy) -> None:
    table = made("repair")["repairs_compared"]
    rows = table.query("role == 'all' and base == 'as it is'")
    text = says(opened, "repair", {"repairs_compared": table})
    for way in ("linear-map", "rescale"):
        of = rows[rows["compared"] == way]
        better = (of["difference"] > 2 * of["stderr"]).sum()
        assert f"{way} improves {better or 'none'} of {len(of)} cuts" in text
    harmed = table.assign(difference=-0.2, stderr=0.01)
    text = says(opened, "repair", {"repairs_compared": harmed})
    assert "linear-map improves none of 4 cuts, and harms 4" in text

    row = {"strategy": "deep", "n": 4, "fraction": 0.25, "healing": "all", "seeds": 3}
    row |= {"base": "healing text", "tasks": 2, "n_questions": 400, "loss_difference": 0.0}
    row |= {"loss_stderr": 0.1, "stderr": 0.01, "ability": "all"}
    found = [("distilled", 0.05), ("lessons", -0.03), ("own", 0.01)]
    ways = pd.DataFrame([row | {"compared": way, "difference": gain} for way, gain in found])
    text = says(opened, "what_heals", {"ways_compared": ways})
    assert "1 of 3 ways are better and 1 worse: distilled is better by 5.0 ± 1.0 points" in text
    assert "lessons is worse by 3.0 ± 1.0 points (400 questions, 3 seeds)." in text


def test_controls_and_other_runs(opened: OpenStudy) -> None:
    row = {"run": "mine", "task": "facts", "shots": 0, "n_questions": 200, "stderr": 0.01}
    row |= {"accuracy": 0.9, "question_free": 0.3, "question_free_stderr": 0.03}
    unpruned = pd.DataFrame([row, row | {"task": "easy", "accuracy": 0.31}, row | {"run": "other"}])
    text = says(opened, "controls", {"unpruned": unpruned})
    assert text.startswith("On 1 of 2 tasks with choices the unpruned model answers better")
    assert "of facts: 90 ± 1% right, and 30 ± 3% from the choices alone." in text

    row = {"task": "facts", "shots": 0, "state": "healed", "fraction": 0.3, "low": 0.2, "high": 0.4}
    runs = [row | {"own": True}, row | {"own": False, "fraction": 0.1}, row | {"own": False}]
    text = says(opened, "families", {"families": pd.DataFrame(runs)})
    assert (
        "once 30% [20, 40] of the layers are gone here, and once 10% to 30% are in 2 other" in text
    )
    text = says(opened, "families", {"families": pd.DataFrame(runs[:1])})
    assert text.startswith("No other run loses half")


def heads(opened: OpenStudy, one: Section, tables: finding.Made) -> str:
    return pages.in_short(opened, one, tables).data


def test_a_page_shows_the_sentence_escaped_and_the_verdicts_that_lead_to_their_cards(
    opened: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "tables", lambda name: paths.published("almanac") / "tables")
    table = Table("one", lambda opened: None, "a row", {"a": "b"})
    says_so = Section(
        tables=(table,), claims=("gromov-8", "lu-8"), in_short=lambda opened, made: "a < b & c."
    )
    html = heads(opened, says_so, {"one": pd.DataFrame({"a": [1]})})
    assert "<strong>In short.</strong> a &lt; b &amp; c.</p>" in html
    assert html.startswith('<div class="in-short mathjax_ignore">')
    assert re.findall(r'href="#(.*?)"', html) == ["claim-gromov-8", "claim-lu-8"]
    cards = pages.verdicts(opened, ["gromov-8", "lu-8"]).data
    assert re.findall(r'id="(.*?)"', cards) == ["claim-gromov-8", "claim-lu-8"]
    assert re.findall(r"verdict-[\w-]+", html) == re.findall(r"verdict-[\w-]+", cards)
    assert heads(opened, Section(), {}) == ""
    added = heads(opened, Section(claims=("gromov-8",)), {})
    assert "In short" not in added and added.count("<a ") == 1
    every = Section(claims=section.every_claim(), in_short=lambda opened, made: "")
    assert unescape(heads(opened, every, {})).count(finding.WITHOUT) == 1
    assert "href" not in heads(opened, every, {})


@pytest.mark.parametrize("path", section.notebooks().values(), ids=lambda path: path.stem)
def test_a_notebook_shows_it_under_the_title(path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    for cell in cells:
        tags = {*cell["metadata"].get("tags", [])}
        assert cell["cell_type"] == "markdown" or len(tags & {"hide-input", "remove-input"}) == 1
    assert len(cells) <= 25 and len({cell["id"] for cell in cells}) == len(cells)
    name = next(name for name, at in section.notebooks().items() if at == path)
    if name in PROSE:
        return
    title, _, settings, measured, head, about, *_ = sources
    assert re.fullmatch(r"\(sec-[\w-]+\)=\n# [^\n]+", title)
    assert "pages.settings(" in settings
    assert measured == f"made = pages.measured(opened, {name}.SECTION)"
    assert head == f"pages.in_short(opened, {name}.SECTION, made)"
    assert cells[4]["metadata"]["tags"] == ["remove-input"]
    assert cells[5]["cell_type"] == "markdown" and not about.startswith("#")
