"""What the printed tables of Lu et al. add up to, computed from book/printed/lu-2024.csv, where the
numbers stand as they are printed.

Accuracies of two models side by side have independent errors, √(p (1 − p) / (N − 1)) each; that of
the average of T tasks is √(Σ SE²) / T. Nothing else is printed, so seeds and draws are not in it.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from lib import paths

# Questions of each task, which reproduce the standard errors that the paper prints.
QUESTIONS = {
    "piqa": 1838,
    "hellaswag": 10042,
    "openbookqa": 500,
    "arc_easy": 2376,
    "arc_challenge": 1172,
    "winogrande": 1267,
    "mmlu": 14042,
    "cmmlu": 11582,
}
CHANCE = dict.fromkeys(QUESTIONS, 0.25) | {"piqa": 0.5, "winogrande": 0.5}
ALL, LETTERED = (*QUESTIONS,), ("mmlu", "cmmlu")  # two are answered by a letter
OTHERS = tuple(task for task in ALL if task not in LETTERED)
LLAMA, REVERSE = "Llama-3.1-8B-It", "reverse-order"
HALF_UNIT = {2: 0.005, 4: 0.00005}  # by printed digits
Rows = list[dict[str, str]]


@cache
def printed() -> pd.DataFrame:
    """A row per model as printed; `average` as text, with its digits."""
    words = {"dropped": str, "average": str, "samples": "Int64"}
    table = pd.read_csv(paths.ROOT / "book" / "printed" / "lu-2024.csv", dtype=words)
    return table.fillna({"dropped": "", "data": ""})


def row(**condition: object) -> pd.Series:
    """The first row of these values."""
    table = printed()
    for key, value in condition.items():
        table = table[table[key] == value]
    return table.iloc[0]


def mean(of: pd.Series, tasks: Sequence[str] = ALL) -> tuple[float, float]:
    """Mean accuracy over tasks with its standard error."""
    errors = [_error(of[task], task) for task in tasks]
    return float(np.mean([of[task] for task in tasks])), float(np.hypot.reduce(errors) / len(tasks))


def lead(first: pd.Series, second: pd.Series, tasks: Sequence[str] = ALL) -> tuple[float, float]:
    """Of the first model over the second."""
    (a, a_error), (b, b_error) = mean(first, tasks), mean(second, tasks)
    return a - b, float(np.hypot(a_error, b_error))


def kept(pruned: pd.Series, whole: pd.Series) -> float:
    """Share of the accuracy above chance that a pruned model keeps."""
    level = float(np.mean([*CHANCE.values()]))
    return (mean(pruned)[0] - level) / (mean(whole)[0] - level)


def points(value: tuple[float, float]) -> str:
    sign = "+" if value[0] >= 0 else "−"
    # Spaces at which no line ends.
    return (
        f"{sign}{abs(100 * value[0]):.2f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{100 * value[1]:.2f}"
    )


def in_words(of: pd.Series) -> str:
    """What a row is about."""
    if of["strategy"] == "none":
        return f"{of['model']}, unpruned"
    samples = f", {of['samples']} samples" if pd.notna(of["samples"]) else ""
    steps = "" if of["schedule"] == "one-shot" else f", {of['schedule']}"
    return f"{of['model']}, {of['fraction']:.0%}, {of['strategy']}{samples}, {of['recipe']}{steps}"


def averages() -> Rows:
    """Rows whose printed average is not that of the printed accuracies."""
    found = []
    for _, of in printed().dropna(subset="average").iterrows():
        digits = len(of["average"].partition(".")[2])
        value, given = mean(of)[0], float(of["average"])
        if abs(value - given) > HALF_UNIT[digits] * 1.0001 + 1e-9:
            found.append(
                {"table": of["table"], "row": in_words(of), "printed": of["average"]}
                | {"sum of the eight over 8": f"{8 * value:.4f} / 8 = {value:.4f}"}
                | {"difference, points": f"{100 * (given - value):+.2f}".replace("-", "−")}
            )
    return found


def copies() -> Rows:
    """Rows of different conditions that agree in all eight accuracies to the last digit."""
    found = []
    for _, group in printed().groupby(list(ALL), sort=False):
        different = group.drop_duplicates(["model", "fraction", "strategy", "samples"])
        if len(different) < 2:
            continue
        sets = {one for one in different["dropped"] if one}
        if different["fraction"].nunique() > 1:
            says = "cannot be: different numbers of layers are dropped"
        elif len(sets) == 1 and all(different["dropped"]):
            says = "follows: the same layers are dropped"
        else:
            says = "follows if both drop the same layers, which is not printed"
        rows = "; ".join(f"{of['table']}: {in_words(of)}" for _, of in different.iterrows())
        found.append({"rows that agree in all 32 digits": rows, "which": says})
    return found


def leads(fraction: float = 0.25) -> Rows:
    """The reverse order against other strategies, healed with LoRA: all tasks, those answered by a
    letter, and the others."""
    found = []
    table = "1" if fraction == 0.25 else "A"
    for model in printed()["model"].drop_duplicates()[:4]:
        first = row(table=table, model=model, strategy=REVERSE)
        for other in ("perplexity", "taylor", "block-influence", "random"):
            second = row(table=table, model=model, strategy=other)
            found.append(
                {"model": model, "reverse-order against": other}
                | {"all eight": points(lead(first, second))}
                | {"MMLU and CMMLU": points(lead(first, second, LETTERED))}
                | {"the other six": points(lead(first, second, OTHERS))}
            )
    return found


def draws() -> Rows:
    """The one random draw at a quarter and at a half of the layers."""
    found = []
    for model in printed()["model"].drop_duplicates()[:4]:
        quarter, half = (row(table=table, model=model, strategy="random") for table in ("1", "A"))
        reverse = row(table="A", model=model, strategy=REVERSE)
        found.append(
            {"model": model, "25% dropped": f"{mean(quarter)[0]:.4f}"}
            | {"50% dropped": f"{mean(half)[0]:.4f}"}
            | {"half less quarter": points(lead(half, quarter))}
            | {"random less reverse order, at 50%": points(lead(half, reverse))}
        )
    return found


def recipes() -> Rows:
    """What training other parts gains on LoRA, and what one more layer does."""
    tuned = {name: f"head+{name}" for name in (1, 2, 3)}
    cases = [("1", "2", model, REVERSE) for model in printed()["model"].drop_duplicates()[:4]]
    cases = [case for case in cases if case[2] in {*printed().query("table == '2'")["model"]}]
    cases.append(("1", "B", LLAMA, "taylor"))
    found = []
    for base, table, model, strategy in cases:
        of = {"model": model, "strategy": strategy}
        lora = row(table=base, recipe="lora", **of)
        of_recipe = {
            name: row(table=table, recipe=name, **of) for name in ("qlora", "head", *tuned.values())
        }
        found.append(
            {"model": model, "layers": strategy}
            | {"QLoRA": points(lead(of_recipe["qlora"], lora))}
            | {"head": points(lead(of_recipe["head"], lora))}
            | {"head and last 3": points(lead(of_recipe[tuned[3]], lora))}
            | {"last 3 against last 2": points(lead(of_recipe[tuned[3]], of_recipe[tuned[2]]))}
        )
    return found


def schedules() -> Rows:
    """What dropping in steps gains, and how much longer it trains."""
    found = []
    stepped = printed()[printed()["schedule"] != "one-shot"]
    for _, of in stepped.iterrows():
        same = {key: of[key] for key in ("model", "fraction", "strategy", "recipe")}
        _, step, total = map(int, of["schedule"].split(":"))
        found.append(
            {"model": of["model"], "layers": of["strategy"], "recipe": of["recipe"]}
            | {"steps": f"{step} at a time to {total}", "training": f"{total // step} times"}
            | {"against all at once": points(lead(of, row(schedule="one-shot", **same)))}
        )
    return found


def sentences() -> Rows:
    """Sentences of the paper's beside what its numbers say."""
    whole = row(table="1", model=LLAMA, strategy="none")
    reverse = row(table="1", model=LLAMA, strategy=REVERSE)
    best = row(table="2", model=LLAMA, recipe="head+3")
    dolly, exam = (row(table="7", data=data) for data in ("dolly", "mmlu"))
    influence = row(table="1", model=LLAMA, strategy="block-influence")
    qwen = row(table="1", model="Qwen1.5-7B", strategy="none")
    thirty = row(table="D", strategy="taylor", samples=30)
    glm = row(table="8", model="ChatGLM2-6B")
    ten = row(table="D", strategy="taylor", samples=10)
    taylor = row(table="1", model=LLAMA, strategy="taylor")
    parts = [lead(reverse, influence), lead(best, reverse), lead(dolly, best)]
    total = lead(dolly, influence)
    added = " + ".join(f"{100 * part[0]:.2f}" for part in parts)
    level = float(np.mean([*CHANCE.values()]))
    winogrande = row(table="B", recipe="head")["winogrande"]
    rows = 49_760 * 256 / 1e6
    found = {
        "About 19% better than block influence": "layers + recipe + data: "
        f"{added} = {100 * total[0]:.2f} points",
        "Better than Qwen1.5-7B": f"{mean(dolly)[0]:.4f} less {mean(qwen)[0]:.4f}: "
        f"{points(lead(dolly, qwen))} points",
        "Comparable to the model it was cut from": f"on Alpaca {points(lead(best, whole))}, on "
        f"Dolly {points(lead(dolly, whole))}; of the accuracy above chance {kept(best, whole):.1%} "
        f"and {kept(dolly, whole):.1%} are left",
        "Ahead of ChatGLM2-6B": f"which is printed at {mean(glm)[0]:.4f}, chance being "
        f"{level:.4f}, and at {glm['mmlu']:.4f} on MMLU: its evaluation did not work",
        "The reverse order is the best metric": "Taylor scores on 30 samples (Table D) against "
        f"it: {points(lead(thirty, reverse))}; on MMLU {thirty['mmlu']:.4f} against "
        f"{reverse['mmlu']:.4f}",
        "The jump between 10 and 30 samples of Taylor scores (Table 6)": "as printed "
        f"{points(lead(thirty, ten))}; with Table 1's row for layers 22 to 29 "
        f"{points(lead(thirty, taylor))}",
        "Training on MMLU's questions harms": f"{points(lead(exam, best))}; in the released code "
        "its loss is taken over positions, not over the next token, so this says nothing about "
        "the data",
        "12.74 million tokens": f"49,760 rows × 256 = {rows:.2f} million, the most that one epoch "
        f"can hold; two are trained, at most {2 * rows:.2f} million",
        "WinoGrande .6795 ± .0109 (Table B)": f"√(.6795 × .3205 / {QUESTIONS['winogrande'] - 1:,}) "
        f"= {_error(winogrande, 'winogrande'):.4f}; .0109 would be PIQA's: "
        f"{_error(row(table='B', recipe='head')['piqa'], 'piqa'):.4f}",
    }
    return [{"in the paper": said, "what the numbers say": shown} for said, shown in found.items()]


def _error(accuracy: float, task: str) -> float:
    return float(np.sqrt(accuracy * (1 - accuracy) / (QUESTIONS[task] - 1)))


def tables() -> dict[str, Rows]:
    """Those of the page, by name."""
    return {
        "averages": averages(),
        "copies": copies(),
        "leads_quarter": leads(0.25),
        "leads_half": leads(0.5),
        "draws": draws(),
        "recipes": recipes(),
        "schedules": schedules(),
        "sentences": sentences(),
    }
