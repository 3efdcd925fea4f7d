"""Claims of Lu et al. about steps, data and what is left, on tables that are made up."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import HEAD, LORA, Given, Judge, judged, last, row

from lib.claims.rules.lu_schedules import LONGER, ONCE, STEPS, TWO_SEEDS, TWO_WAYS
from lib.sections import families, on_what, step_by_step, what_to_train, which_layers


@pytest.fixture
def judge(results_dir: Path) -> Judge:
    return lambda claim, given: judged(results_dir / "made up", claim, given)


def recipes(lead: float) -> pd.DataFrame:
    rows = [
        {"strategy": strategy, "n": n, "fraction": n / 16, "seeds": 3}
        | {"keeps_last": "yes" if strategy == "simple" else ""}
        | row(last(3), LORA, lead)
        for strategy in ("reverse-order", "simple")
        for n in (4, 8)
    ]
    return pd.DataFrame(rows, columns=list(what_to_train.COMPARED))


def rates(used: float, edge: str = "") -> pd.DataFrame:
    rows = [
        {"healing": name, "learning_rate": rate, "chosen": "yes" if rate == 1e-3 else ""}
        | {"edge": edge if rate == 1e-3 else "", "used": "yes" if rate == used else ""}
        for name in (LORA, last(3))
        for rate in (1e-4, 1e-3)
    ]
    return pd.DataFrame(rows, columns=list(what_to_train.RATES))


def test_claim_15(judge: Judge) -> None:
    def verdict(lead: float, used: float) -> str:
        return judge("lu-15", {"recipes_compared": recipes(lead), "learning_rates": rates(used)})

    assert verdict(0.1, 1e-3) == "reproduced"
    assert verdict(-0.1, 1e-3) == "not reproduced"
    assert verdict(0.1, 1e-4) == "not testable here"  # not the rates of lowest loss


def steps(gains: list[float], base: str, each: int = 1, **more: object) -> pd.DataFrame:
    about = {"strategy": "reverse-order", "healing": LORA, "each": each, "seeds": 3}
    rows = [
        about | {"n": n, "fraction": n / 16, "just_trained": 1.0} | row(STEPS, base, gain) | more
        for n, gain in zip((2, 4, 6, 8), gains, strict=False)
    ]
    return pd.DataFrame(rows, columns=list(step_by_step.COMPARED))


@pytest.mark.parametrize(("number", "base"), [(21, ONCE), (22, LONGER)])
def test_claims_21_and_22(judge: Judge, number: int, base: str) -> None:
    def verdict(gains: list[float], **more: object) -> str:
        return judge(f"lu-{number}", {"steps_compared": steps(gains, base, **more)})

    assert verdict([0.0, 0.0, -0.1, 0.0]) == "reproduced"
    assert verdict([0.0, 0.1, 0.0, 0.0]) == "not reproduced"
    assert verdict([0.0, 0.0, 0.0, 0.0], stderr=0.05) == "undecided"
    other = {ONCE: LONGER, LONGER: ONCE}[base]
    assert judge(f"lu-{number}", {"steps_compared": steps([0.0], other)}) == "not testable here"


def test_claim_23(judge: Judge) -> None:
    def verdict(gains: list[float], **more: object) -> str:
        return judge("lu-23", {"steps_compared": steps(gains, LONGER, **more)})

    assert verdict([0.10, 0.05, 0.0, -0.05]) == "yes"
    assert verdict([0.0, 0.0, 0.0, 0.0]) == "no"
    assert verdict([0.1, 0.1, 0.1, 0.1]) == "open"  # a slope may still be there
    assert verdict([0.1, 0.1, 0.1, 0.1], stderr=0.001) == "no"
    assert verdict([0.1, 0.0]) == "not testable here"


def test_claim_24(judge: Judge) -> None:
    def verdict(gain: float, share: float = 1.0, **more: object) -> str:
        named = {"strategy": "taylor", "healing": last(3), "just_trained": share}
        return judge("lu-24", {"steps_compared": steps([0.0, gain], ONCE, **named, **more)})

    assert verdict(-0.2) == "reproduced"
    assert verdict(-0.2, share=0.2) == "partly"
    assert verdict(0.0) == verdict(0.0, share=0.2) == "not reproduced"
    several = [steps([0.0, -0.2], ONCE, strategy="taylor", healing=last(3), just_trained=1.0)]
    several.append(several[0].assign(healing=f"{last(3)}-on-lessons", difference=0.0))
    assert judge("lu-24", {"steps_compared": pd.concat(several)}) == "not reproduced"
    assert verdict(-0.06, share=0.2) == "undecided"
    assert verdict(-0.2, each=2) == "not testable here"


def test_claim_25(judge: Judge) -> None:
    def verdict(ways: float, seeds: float | None, stderr: float = 0.001) -> str:
        about = {"strategy": "reverse-order", "n": 8, "fraction": 0.5, "healing": LORA, "each": 1}
        rows = [
            about | {"pair": pair, "seed": 0, "layer": layer, "cka": 1 - apart, "stderr": stderr}
            for pair, apart in ((TWO_WAYS, ways), (TWO_SEEDS, seeds))
            for layer in range(3)
            if apart is not None
        ]
        return judge(
            "lu-25", {"steps_aligned": pd.DataFrame(rows, columns=list(step_by_step.ALIGNED))}
        )

    assert verdict(0.3, 0.1) == "reproduced"
    assert verdict(0.15, 0.1) == "not reproduced"
    assert verdict(0.21, 0.1, stderr=0.02) == "undecided"
    assert verdict(0.3, None) == "not testable here"


def sizes(indexes: dict[str, float], accuracies: list[float], error: float = 0.001) -> Given:
    rows = [
        {"strategy": name, "n": 4, "fraction": 0.25, "windows": windows, "draws": 10}
        | {"different": 5, "jaccard": index, "jaccard_stderr": 0.01, "drawn": 0.02}
        | {"accuracy": accuracy, "draw_stderr": error, "stderr": 0.01}
        for name, index in indexes.items()
        for windows, accuracy in zip((1, 5, 10, 30, 50), accuracies, strict=False)
    ]
    return {"calibration_sizes": pd.DataFrame(rows, columns=list(on_what.SIZES))}


def test_claims_26_and_27(judge: Judge) -> None:
    rising, level = [0.3, 0.35, 0.4, 0.45, 0.5], [0.4, 0.41, 0.4, 0.39, 0.4]
    both = {"taylor": 0.5, "block-influence": 0.5}
    assert judge("lu-26", sizes(both, rising)) == "reproduced"
    assert judge("lu-26", sizes(both | {"taylor": 1.0}, rising)) == "partly"
    assert judge("lu-26", sizes({"taylor": 0.79}, rising)) == "undecided"
    assert judge("lu-26", sizes(both, rising[:2])) == "not testable here"
    few = sizes(both, rising)["calibration_sizes"].assign(draws=2, jaccard_stderr=np.nan)
    assert judge("lu-26", {"calibration_sizes": few}) == "not testable here"
    assert judge("lu-27", sizes(both, rising)) == "reproduced"
    assert judge("lu-27", sizes(both, level)) == "not reproduced"
    assert judge("lu-27", sizes(both, level, error=0.05)) == "undecided"
    assert judge("lu-27", sizes(both, rising[:3])) == "not testable here"


def test_claim_28(judge: Judge) -> None:
    def verdict(by_text: float, by_search: float, other: bool, stderr: float = 0.001) -> str:
        rows = [
            {"strategy": search, "text": text, "n": 4, "fraction": 0.25, "stderr": stderr}
            | {"accuracy": 0.5 + by_search * i + by_text * j}
            | {"dropped": f"1 {10 + (j if other else i)}"}
            for i, search in enumerate(("perplexity", "greedy"))
            for j, text in enumerate(("one", "two", "three"))
        ]
        table = pd.DataFrame(rows, columns=list(on_what.TEXTS))
        return judge("lu-28", {"calibration_texts": table})

    assert verdict(0.1, 0.0, True) == "reproduced"
    assert verdict(0.1, 0.0, False) == verdict(0.0, 0.1, True) == "partly"
    assert verdict(0.0, 0.1, False) == "not reproduced"
    assert verdict(0.0, 0.0, True, stderr=0.05) == "undecided"  # nothing but noise
    assert verdict(np.nan, 0.0, True) == "not testable here"


def data(leads: dict[tuple[str, str], float], role: str = "all", seeds: int = 3) -> Given:
    rows = [
        {"strategy": "reverse-order", "n": 4, "fraction": 0.25, "healing": LORA, "seeds": seeds}
        | {"masked": "otherwise" if "lessons-all" in (first, second) else "alike"}
        | row(first, second, lead, role=role)
        for (first, second), lead in leads.items()
    ]
    return {"data_compared": pd.DataFrame(rows, columns=list(on_what.COMPARED))}


def test_claims_29_to_31(judge: Judge) -> None:
    pairs = [("healing text", "lessons"), ("lessons", "exam"), ("healing text", "exam")]
    flat = dict.fromkeys(pairs, 0.0)
    assert judge("lu-29", data(flat | {pairs[1]: -0.1})) == "reproduced"
    assert judge("lu-29", data(flat)) == "not reproduced"
    assert judge("lu-29", data(flat | {pairs[1]: 0.1}, seeds=2)) == "not testable here"
    assert judge("lu-29", data({pairs[0]: 0.1})) == "not testable here"
    # What differs in its masking alone is no other data set.
    masked = {("lessons", "lessons-all"): 0.3, ("healing text", "lessons-all"): 0.3}
    assert judge("lu-29", data(flat | masked)) == "not reproduced"
    assert judge("lu-29", data({pairs[0]: 0.3} | masked)) == "not testable here"
    assert judge("lu-31", data(dict.fromkeys(pairs, 0.1), "reading")) == "reproduced"
    assert judge("lu-31", data(flat, "reading")) == "not reproduced"
    assert judge("lu-31", data(dict.fromkeys(pairs, 0.1))) == "not testable here"
    for gap, verdict in ((0.1, "yes"), (-0.1, "yes"), (0.0, "no")):
        rows = [
            {"strategy": "reverse-order", "healing": LORA, "n": 4, "more": 8, "compared": "lessons"}
            | {"base": "exam", "interaction": gap, "stderr": 0.01, "n_questions": 500}
        ]
        table = pd.DataFrame(rows, columns=list(on_what.INTERACTION))
        assert judge("lu-30", {"data_interaction": table}) == verdict


def test_claim_33(judge: Judge) -> None:
    def verdict(knowledge: float, reading: float, width: float = 0.02) -> str:
        found = pd.DataFrame(
            [
                {"task": task, "shots": 0, "strategy": "similarity", "state": "healed"}
                | {"fraction": at, "low": at - width, "high": at + width}
                for task, at in (("facts", knowledge), ("passages", reading))
            ]
        )
        asked = pd.DataFrame(
            [
                {"task": "facts", "shots": 0, "role": "knowledge"},
                {"task": "passages", "shots": 0, "role": "reading"},
            ]
        )
        return judge("lu-33", {"transitions": found, "qa": asked})

    assert verdict(0.3, 0.6) == "reproduced"
    assert verdict(0.6, 0.3) == "not reproduced"
    assert verdict(0.3, 0.35, width=0.2) == "undecided"


def outcomes(quarter: float, half: float, healing: str) -> pd.DataFrame:
    about = {"state": "healed", "strategy": "reverse-order", "stderr": 0.01, "chance": 0.25}
    rows = [
        about | {"n": 4, "fraction": 0.25, "healing": healing, "accuracy": quarter, "seed": 0},
        about | {"n": 8, "fraction": 0.5, "healing": healing, "accuracy": half, "seed": 0},
        about
        | {"n": 0, "fraction": 0.0, "healing": "none", "accuracy": 0.75, "stderr": 0.01}
        | {"strategy": "none", "state": "unhealed"},
    ]
    return pd.DataFrame(rows, columns=list(what_to_train.OUTCOMES))


def test_claims_34_and_36(judge: Judge) -> None:
    for half, verdict in ((0.30, "reproduced"), (0.60, "not reproduced"), (0.375, "undecided")):
        given = {"what_to_train": outcomes(0.7, half, LORA)}
        assert judge("lu-34", given) == verdict
    assert judge("lu-34", {"what_to_train": outcomes(0.7, 0.3, last(3))}) == "not testable here"
    for quarter, verdict in ((0.76, "reproduced"), (0.5, "not reproduced")):
        given = {"what_to_train": outcomes(quarter, 0.3, last(3))}
        assert judge("lu-36", given) == verdict


def test_claims_37_and_38(judge: Judge) -> None:
    def given(
        pruned: float, scratch: float, tokens: float | None = 1e13, named: str = "yes"
    ) -> Given:
        scores = [
            {"study": run, "run": run, "layers": layers, "task": task, "shots": 0}
            | {"accuracy": value, "stderr": 0.01, "guess": 0.25, "constant": 0.2, "own": own}
            | {"scratch": "" if own else named}
            for run, layers, value, own in (("mine", 16, 0.75, True), ("small", 8, scratch, False))
            for task in ("facts", "passages")
        ]
        costs = [{"healing": last(3), "tokens": 1e6, "pretraining_tokens": tokens}]
        return {
            "what_to_train": outcomes(0.7, pruned, last(3)),
            "family_scores": pd.DataFrame(scores, columns=list(families.FAMILY_SCORES)),
            "training_costs": pd.DataFrame(costs, columns=list(what_to_train.COSTS)),
        }

    assert judge("lu-37", given(0.6, 0.4)) == judge("lu-38", given(0.6, 0.4)) == "reproduced"
    assert judge("lu-37", given(0.4, 0.6)) == judge("lu-38", given(0.4, 0.6)) == "not reproduced"
    assert judge("lu-38", given(0.6, 0.4, tokens=1e9)) == "not reproduced"
    assert judge("lu-38", given(0.6, 0.4, tokens=None)) == "not testable here"
    assert judge("lu-37", given(0.6, 0.4, named="")) == "not testable here"
    alone = given(0.6, 0.4)
    alone["family_scores"] = alone["family_scores"].head(2)
    assert judge("lu-37", alone) == "not testable here"


def test_claim_39(judge: Judge) -> None:
    for lead, verdict in ((0.1, "reproduced"), (-0.1, "not reproduced")):
        rows = [
            {"n": 4, "fraction": 0.25, "models": "healed"}
            | row("block-influence", "reverse-order", -lead)
        ]
        table = pd.DataFrame(rows, columns=list(which_layers.COMPARED))
        given = {"layers_compared": table, "recipes_compared": recipes(0.1)}
        assert judge("lu-39", given) == verdict


def test_claim_42(judge: Judge) -> None:
    def verdict(held: int, runs: int) -> str:
        rows = [
            {"study": f"s{i}", "run": f"s{i}", "paper": "lu", "claim": claim}
            | {"verdict": "reproduced" if i < held else "not reproduced"}
            for claim in (1, 10, 14, 22)
            for i in range(runs)
        ]
        table = pd.DataFrame(rows, columns=list(families.FAMILY_VERDICTS))
        return judge("lu-42", {"family_verdicts": table})

    assert verdict(5, 5) == "reproduced"
    assert verdict(0, 5) == "not reproduced"
    assert verdict(3, 6) == "undecided"
    assert verdict(4, 4) == "not testable here"


@pytest.mark.parametrize("number", [32, 35, 41])
def test_what_is_not_measured_yet_says_so(judge: Judge, number: int) -> None:
    assert judge(f"lu-{number}", {}) == "not testable here"


def test_claim_40_is_that_of_the_first_paper(judge: Judge) -> None:
    share = np.array([0.0, 0.25, 0.5, 0.75])
    costs = pd.DataFrame({"fraction": share, "weights": "float32", "bytes": 1e6 * (1 - share)})
    for what in ("read", "write"):
        costs[f"{what}_seconds"] = 1 - share
        costs[f"{what}_stderr"] = 0.001
    assert judge("lu-40", {"cost": costs}) == judge("gromov-13", {"cost": costs}) == "reproduced"
    assert HEAD in last(3)
