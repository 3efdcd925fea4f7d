"""Two sides of a comparison: win, loss, tie or undecided, and the claims of Lu et al. on tables
that are made up."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import HEAD, LORA, Given, Judge, judged, last, row

from lib.claims.rules import pairs
from lib.claims.rules.pairs import Pair
from lib.sections import last_layer, what_to_train, which_layers

RIVALS = ["magnitude", "taylor", "perplexity", "block-influence", "random, mean of the draws"]


@pytest.mark.parametrize(
    ("difference", "stderr", "result"),
    [
        (0.05, 0.02, "win"),
        (-0.05, 0.02, "loss"),
        (0.05, 0.03, "undecided"),  # not by two standard errors
        (0.019, 0.001, "tie"),  # by two, but too small to count
        (0.0, 0.02, "tie"),
        (0.0, 0.03, "undecided"),  # a tie has to be shown
        (0.03, 0.0, "win"),
    ],
)
def test_a_pair_is_what_it_shows(difference: float, stderr: float, result: str) -> None:
    (found,) = pairs.pairs([("one", difference, stderr)])
    assert found.result == result
    assert pairs.wins("", found).sure == (result == "win")
    assert pairs.wins("", found).possible == (result in ("win", "undecided"))
    assert pairs.holds_up("", found).sure == (result in ("win", "tie"))
    assert pairs.holds_up("", found).possible == (result != "loss")


def test_many_comparisons_ask_more_of_each() -> None:
    alone = pairs.pairs([("one", 0.05, 0.022)])
    family = pairs.pairs([("one", 0.05, 0.022)] * 5)
    assert alone[0].result == "win" and {one.result for one in family} == {"undecided"}
    # Holm: the smallest p is compared with a quarter of the level, the next with a third, …, and
    # after the first that is too large none falls.
    p = [0.99 * pairs.LEVEL, pairs.LEVEL / 5, 0.99 * pairs.LEVEL / 3, 1.01 * pairs.LEVEL / 2]
    assert pairs.holm(p).tolist() == [False, True, True, False]
    assert pairs.holm([]).tolist() == []


@pytest.fixture
def judge(results_dir: Path) -> Judge:
    return lambda claim, given: judged(results_dir / "made up", claim, given)


def layers(leads: dict[str, float], fraction: float, models: str, **more: object) -> pd.DataFrame:
    """What reverse-order leads each by; every second row the other way round."""
    about = {"n": round(16 * fraction), "fraction": fraction, "models": models} | more
    rows = [
        about
        | (row("reverse-order", name, lead) if number % 2 else row(name, "reverse-order", -lead))
        for number, (name, lead) in enumerate(leads.items())
    ]
    return pd.DataFrame(rows, columns=list(which_layers.COMPARED))


@pytest.mark.parametrize(
    ("leads", "verdict"),
    [
        ([0.1, 0.1, 0.1, 0.1, 0.1], "reproduced"),
        ([0.1, 0.1, 0.0, 0.1, 0.1], "reproduced"),  # a tie
        ([0.1, 0.1, 0.022, 0.1, 0.1], "partly"),  # neither: 0.022 + 0.02 < 0.05 is a tie, see below
        ([0.1, 0.1, -0.1, 0.1, 0.1], "not reproduced"),
    ],
)
def test_claim_1(judge: Callable, leads: list[float], verdict: str) -> None:
    table = layers(dict(zip(RIVALS, leads, strict=True)), 0.25, "healed")
    if verdict == "partly":
        table.loc[2, "stderr"] = 0.03
    assert judge("lu-1", {"layers_compared": table}) == verdict
    few = table[table["compared"] != RIVALS[0]]
    if verdict == "reproduced":  # one of them was not healed
        assert judge("lu-1", {"layers_compared": few}) == "partly"


def test_claim_1_takes_nothing_from_the_same_layers(judge: Callable) -> None:
    table = layers(dict.fromkeys(RIVALS, 0.1), 0.25, "healed")
    same = table.assign(same="yes")
    assert judge("lu-1", {"layers_compared": same}) == "not testable here"
    assert judge("lu-3", {"layers_compared": table}) == "not testable here"  # another fraction


def test_claim_2(judge: Callable) -> None:
    for leads, verdict in (
        ((0.1, 0.1), "reproduced"),
        ((0.1, 0.0), "partly"),
        ((0, 0), "not reproduced"),
    ):
        parts = [
            layers({"perplexity": lead}, 0.25, "healed").assign(role=role)
            for lead, role in zip(leads, ("knowledge", "reading"), strict=True)
        ]
        assert judge("lu-2", {"layers_compared": pd.concat(parts)}) == verdict


def test_claims_4_and_6(judge: Callable) -> None:
    for leads, verdict in (
        ((0.1, 0.0), "reproduced"),
        ((0.1, -0.1), "partly"),
        ((-0.1, -0.1), "not reproduced"),
    ):
        parts = [
            layers({"greedy": lead}, fraction, "unhealed")
            for lead, fraction in zip(leads, (0.25, 0.5), strict=True)
        ]
        assert judge("lu-4", {"layers_compared": pd.concat(parts)}) == verdict
    one = pd.DataFrame(
        [{"n": 4, "fraction": 0.25, "models": "unhealed"} | row("taylor", "taylor-guarded", -0.1)]
    )
    other = one.assign(fraction=0.5, n=8, same="yes")
    assert judge("lu-6", {"layers_compared": pd.concat([one, other])}) == "reproduced"
    assert (
        judge("lu-6", {"layers_compared": pd.concat([other, other.assign(fraction=0.25)])})
        == "not testable here"
    )


def models(accuracies: dict[str, float], draws: list[float], **more: object) -> pd.DataFrame:
    named = [
        {"strategy": name, "accuracy": value, "dropped": str(number)}
        for number, (name, value) in enumerate(accuracies.items())
    ]
    drawn = [{"strategy": "random", "draw": i, "accuracy": value} for i, value in enumerate(draws)]
    about = {"state": "unhealed", "healing": "none", "stderr": 0.005, "chance": 0.25}
    parts = [
        {"n": n, "fraction": n / 16} | about | one | more for n in (4, 8) for one in named + drawn
    ]
    return pd.DataFrame(parts, columns=list(which_layers.OUTCOMES))


def test_claim_8(judge: Callable) -> None:
    random = np.random.default_rng(0)
    named = {"reverse-order": 0.5, "taylor": 0.52, "greedy": 0.54}
    wide, narrow = (list(0.5 + scale * random.standard_normal(20)) for scale in (0.1, 0.001))
    assert judge("lu-8", {"which_layers": models(named, wide)}) == "reproduced"
    assert judge("lu-8", {"which_layers": models(named, narrow)}) == "not reproduced"
    assert judge("lu-8", {"which_layers": models(named, wide[:19])}) == "not testable here"


def test_claim_7(judge: Callable) -> None:
    table = which = models({"magnitude": 0.3}, [0.5] * 20)
    for lead, verdict in ((0.1, "reproduced"), (-0.1, "not reproduced")):
        rows = [
            {"n": n, "fraction": n / 16, "models": "unhealed"} | row("magnitude", RIVALS[-1], -lead)
            for n in (4, 8)
        ]
        given = {"layers_compared": pd.DataFrame(rows), "which_layers": which}
        assert judge("lu-7", given) == verdict
    assert len(table) == 42


def test_claim_9(judge: Callable) -> None:
    names = ["a", "b", "c", "d", "e"]
    rising = dict(zip(names, (0.3, 0.4, 0.5, 0.6, 0.7), strict=True))
    falling = dict(zip(names, (0.7, 0.6, 0.5, 0.4, 0.3), strict=True))
    plain = models(rising, [])
    for healed, verdict in ((rising, "yes"), (falling, "no")):
        trained = models(healed, [], state="healed", healing="lora-r8")
        assert judge("lu-9", {"which_layers": pd.concat([plain, trained])}) == verdict
    close = models(dict(zip(names, (0.5, 0.501, 0.502, 0.503, 0.504), strict=True)), [])
    trained = close.assign(state="healed", healing="lora-r8")
    assert judge("lu-9", {"which_layers": pd.concat([close, trained])}) == "open"
    assert judge("lu-9", {"which_layers": plain}) == "not testable here"


def test_claims_5_and_11(judge: Callable) -> None:
    one = {"n": 4, "fraction": 0.25, "strategy": "block-influence", "pairs": 1}
    one |= {"other": "block-influence-flattened"}
    for jaccard, tau, verdict in (
        (1.0, 0.9, "reproduced"),
        (0.6, 0.9, "partly"),
        (0.3, 0.2, "not reproduced"),
    ):
        table = pd.DataFrame([one | {"jaccard": jaccard, "tau": tau}])
        assert judge("lu-5", {"agreement": table}) == verdict
        assert judge("lu-11", {"agreement": table}) == ("no" if jaccard == 1 else "yes")


def advantage(unhealed: float, partial: float, stderr: float = 0.01) -> Given:
    rows, contrasts = [], []
    for n in (4, 8):
        for healing, lead in (
            ("none", unhealed),
            ("lora-r8-a16-all", 0.0),
            ("partial-head-norm-last3", partial),
        ):
            rows.append(
                {"n": n, "fraction": n / 16, "healing": healing, "seeds": 1}
                | row("simple", "reverse-order", lead, stderr)
            )
        contrasts.append(
            {"n": n, "fraction": n / 16, "role": "all", "healing": "partial-head-norm-last3"}
            | {"other": "none", "interaction": partial - unhealed, "stderr": stderr}
        )
    return {
        "last_layer": pd.DataFrame(rows, columns=list(last_layer.ADVANTAGE)),
        "last_layer_interaction": pd.DataFrame(contrasts, columns=list(last_layer.INTERACTION)),
    }


@pytest.mark.parametrize(
    ("unhealed", "partial", "verdict"),
    [
        (0.2, 0.0, "reproduced"),
        (0.2, -0.1, "reproduced"),
        (0.2, 0.1, "partly"),  # the interaction alone
        (0.1, 0.1, "not reproduced"),
        (-0.1, -0.1, "not reproduced"),
    ],
)
def test_claim_10(judge: Callable, unhealed: float, partial: float, verdict: str) -> None:
    assert judge("lu-10", advantage(unhealed, partial)) == verdict
    assert judge("lu-10", advantage(unhealed, partial, stderr=0.2)) == "undecided"


def recipes(
    leads: dict[tuple[str, str], float], strategies: tuple[str, ...] = ("reverse-order",)
) -> Given:
    rows = [
        {"strategy": strategy, "n": n, "fraction": n / 16, "seeds": 1}
        | {"keeps_last": "" if strategy == "reverse-order" else "yes"}
        | row(first, second, lead)
        for strategy in strategies
        for n in (4, 8)
        for (first, second), lead in leads.items()
    ]
    return {"recipes_compared": pd.DataFrame(rows, columns=list(what_to_train.COMPARED))}


QLORA = f"q{LORA}"


def test_claims_about_recipes(judge: Callable) -> None:
    def verdict(number: int, leads: dict, strategies: tuple[str, ...] = ("reverse-order",)) -> str:
        return judge(f"lu-{number}", recipes(leads, strategies))

    assert verdict(12, {(LORA, QLORA): 0.05}) == "reproduced"
    assert verdict(12, {(QLORA, LORA): 0.05}) == "not reproduced"
    assert verdict(12, {(LORA, HEAD): 0.05}) == "not testable here"
    assert verdict(12, {("lora-r8", QLORA): 0.05}) == "not testable here"  # of other adapters
    assert verdict(13, {(HEAD, LORA): 0.05}) == "reproduced"
    assert verdict(13, {(LORA, HEAD): 0.05}) == "not reproduced"
    both = ("reverse-order", "simple")
    assert verdict(14, {(last(3), LORA): 0.05}, both) == "reproduced"
    assert verdict(14, {(last(3), LORA): 0.05}) == "not testable here"
    assert verdict(14, {(LORA, last(3)): 0.05}, both) == "not reproduced"
    rising = {(last(1), HEAD): 0.05, (last(2), last(1)): 0.03, (last(3), last(2)): 0.005}
    assert verdict(16, rising) == "reproduced"
    assert verdict(16, rising | {(last(3), last(2)): 0.2}) == "partly"
    assert verdict(16, rising | {(last(3), last(2)): 0.04}) == "partly"  # small, but a win
    cut = {(f"{HEAD}-cut3", last(3)): 0.05, (f"{HEAD}-first3", f"{HEAD}-cut3"): -0.2}
    assert verdict(18, cut, ("simple",)) == "yes"
    assert verdict(18, {(last(3), f"{HEAD}-cut3"): 0.05}, ("simple",)) == "no"
    assert verdict(19, {(HEAD, "partial-head"): 0.0}) == "reproduced"
    assert verdict(19, {(HEAD, "partial-head"): 0.2}) == "not reproduced"


def test_claim_17(judge: Callable) -> None:
    for dense, verdict in ((0.0, "reproduced"), (0.1, "not reproduced")):
        given = recipes({(last(3), LORA): 0.1})
        whole = {"strategy": "none", "n": 0, "fraction": 0.0, "seeds": 1} | row(
            last(3), LORA, dense
        )
        table = pd.concat([given["recipes_compared"], pd.DataFrame([whole])])
        assert judge("lu-17", {"recipes_compared": table}) == verdict
    assert judge("lu-17", recipes({(last(3), LORA): 0.1})) == "not testable here"


def test_claim_20(judge: Callable) -> None:
    def table(seconds: float, predicted: float, memory: float | None = 1.1) -> Given:
        about = {"n": 4, "strategy": "reverse-order", "seed": 0}
        rows = [
            about | {"healing": name, "seconds": time, "predicted_time": count}
            for name, time, count in ((last(3), seconds, predicted), (LORA, 20.0, 2.0))
        ]
        table = pd.DataFrame(rows, columns=list(what_to_train.COSTS))
        table["peak_gpu_memory_gb"] = [memory, 1.0] if memory else np.nan
        return {"training_costs": table}

    assert judge("lu-20", table(14, 1.5)) == "reproduced"
    assert judge("lu-20", table(14, 0.6)) == "partly"
    assert judge("lu-20", table(14, 1.5, memory=2.0)) == "partly"
    assert judge("lu-20", table(14, 1.5, memory=None)) == "undecided"
    assert judge("lu-20", table(24, 1.6)) == "not reproduced"
    alone = table(14, 1.5)["training_costs"].head(1)
    assert judge("lu-20", {"training_costs": alone}) == "not testable here"


def test_claim_10_is_about_these_strategies_and_this_recipe(judge: Callable) -> None:
    given = advantage(0.2, 0.0)
    other = given["last_layer"].replace("partial-head-norm-last3", "partial-head-norm-cut3")
    assert judge("lu-10", given | {"last_layer": other}) == "not testable here"
    other = given["last_layer"].replace("simple", "greedy")
    assert judge("lu-10", given | {"last_layer": other}) == "not testable here"


def test_the_nearest_number_of_layers_is_taken(judge: Callable) -> None:
    near, nearest = (
        layers(dict.fromkeys(RIVALS, lead), n / 32, "healed") for lead, n in ((-0.1, 7), (0.1, 8))
    )
    assert judge("lu-1", {"layers_compared": pd.concat([near, nearest])}) == "reproduced"
    assert judge("lu-1", {"layers_compared": near}) == "not reproduced"  # 22%
    far = layers(dict.fromkeys(RIVALS, 0.1), 6 / 32, "healed")
    assert judge("lu-1", {"layers_compared": far}) == "not testable here"


def test_ties_and_turned_pairs() -> None:
    for result in ("win", "loss", "tie", "undecided"):
        pair = Pair("one", 0.03, 0.01, result)
        assert pairs.ties("", pair).sure == (result == "tie")
        assert pairs.ties("", pair).possible == (result in ("tie", "undecided"))
        assert pairs.turned(pairs.turned(pair)) == pair
    assert pairs.turned(Pair("one", 0.03, 0.01, "win")) == Pair("one", -0.03, 0.01, "loss")


def test_a_pair_says_what_it_shows() -> None:
    assert str(Pair("a against b", 0.0312, 0.004, "win")) == "a against b +3.1 ± 0.4 points (wins)"
