"""The paper's claims as data: what is said, where, and the rule that decides it on a study.

A verdict is per study, and computed: nothing here knows a result.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from lib.claims import further_rules, rules
from lib.claims.judging import (
    COMPARABLE,
    CONTRAST,
    FLAT_FRACTION,
    FLAT_LOSS,
    JUMP,
    LINEAR,
    MOST,
    NEAR,
    VERDICTS,
    Outcome,
    Tables,
    Untestable,
    percent,
)


@dataclass(frozen=True)
class Claim:
    """`where` is the paper's figure or section, `tables` what the rule reads, `fails` what would be
    seen if the claim did not hold."""

    number: int
    statement: str
    where: str
    tables: tuple[str, ...]
    rule: str
    fails: str
    check: Callable[[Tables], Outcome]

    def verdict(self, tables: Tables) -> Outcome:
        try:
            return self.check(tables)
        except Untestable as reason:
            return Outcome(VERDICTS[3], str(reason))


CLAIMS = [
    Claim(
        1,
        "Some blocks can be removed with accuracy on questions nearly unchanged.",
        "Fig. 2",
        ("qa",),
        f"Healed, similarity: accuracy stays within {FLAT_LOSS:.2f} (or 2 standard errors) of the "
        f"unpruned model healed the same way up to a fraction of at least {FLAT_FRACTION:.2f}; "
        "on every task that the unpruned model can do: reproduced, on some: partly. The standard "
        "errors are those of two accuracies side by side; paired ones would be smaller.",
        "Accuracy drops by more than the margin before that fraction on every task.",
        rules.flat_region,
    ),
    Claim(
        2,
        "Accuracy falls to chance sharply, at a critical fraction.",
        "Fig. 2, 6",
        ("transitions",),
        "Healed, similarity: the fitted 10–90% width is smaller than the flat region before it "
        "(critical fraction less half the width); on every fitted task: reproduced, on some: "
        "partly.",
        "Every fitted curve falls over a stretch as long as its flat region, or longer.",
        rules.sharp,
    ),
    Claim(
        3,
        "Healing moves the transition to slightly larger fractions and helps most on loss.",
        "Fig. 2, 3",
        ("transitions", "loss"),
        "(a) More than half of the fitted curves have their critical fraction moved up against "
        "the same 4-bit models unhealed; (b) loss is lower by more than 2 standard errors at every "
        "healed fraction of at least 0.25. Both: reproduced, one: partly.",
        "Transitions stay or move to smaller fractions, and some healed loss is no lower.",
        rules.healing_moves,
    ),
    Claim(
        4,
        "Unhealed loss rises to ln V near the fraction where accuracy falls.",
        "Fig. 3",
        ("loss", "transitions"),
        f"Unhealed, similarity: the fraction where normalised loss is half-way to 1 is within "
        f"{NEAR:.2f} of the critical fraction of some task (a) and within {2 * NEAR:.2f} of all "
        "(b). Both: reproduced, one: partly.",
        "Loss gets half-way to ln V far from where accuracy falls, or never.",
        rules.loss_transition,
    ),
    Claim(
        5,
        "Healed loss grows slowly and about linearly, with no jump where accuracy falls.",
        "Fig. 3",
        ("loss", "transitions"),
        "Healed, similarity, where some accuracy falls: (a) a straight line explains at least "
        f"{LINEAR:.2f} of the variance, "
        f"(b) no step between neighbouring fractions is steeper than {JUMP:.0f} times the mean "
        "slope. Both: reproduced, one: partly.",
        "Loss bends or jumps: a straight line fits badly and one step is steep.",
        rules.loss_continuous,
    ),
    Claim(
        6,
        "Deeper blocks are more similar than shallow ones.",
        "Fig. 4",
        ("angular_distances", "untrained_distances"),
        f"Blocks of n ≤ L/2 without the last layer: mean distance in the shallow half at least "
        f"{CONTRAST} times that in the deep half, and this ratio at least {CONTRAST} times that of "
        "the untrained twin: reproduced; larger than the twin's by less: partly.",
        "Deep blocks are not clearly more similar, or are so in the untrained twin as well.",
        rules.deeper_similar,
    ),
    Claim(
        7,
        "Blocks that include the last layer are (nearly) the most dissimilar: never drop it.",
        "Fig. 4",
        ("angular_distances",),
        f"Rows n ≤ L/2: (a) in {MOST:.2f} of them the block with the last layer lies in the top "
        f"tenth of the row's range, (b) in all it is farther apart than the block one layer "
        "earlier; the last layer's output before the final norm. Both: reproduced, one: partly.",
        "Rows end near their minimum, and taking in the last layer makes some block more similar.",
        rules.last_layer,
    ),
    Claim(
        8,
        "Unhealed, the simple heuristic is much worse than the similarity-informed one.",
        "Fig. 5",
        ("qa", "loss"),
        f"Means over fractions up to 0.6: (a) similarity leads in accuracy by {COMPARABLE:.2f} and "
        f"2 standard errors on some task, (b) in normalised loss by {COMPARABLE:.2f}. Both: "
        "reproduced, one: partly.",
        "Neither accuracy nor loss tells the strategies apart.",
        rules.simple_worse,
    ),
    Claim(
        9,
        "Healed, the two strategies are comparable.",
        "Fig. 5",
        ("qa", "loss"),
        f"Means over the healed fractions: (a) accuracies differ by at most {COMPARABLE:.2f} or 2 "
        f"standard errors on every task, (b) normalised losses by at most {COMPARABLE:.2f}. Both: "
        "reproduced, one: partly. The standard errors are those of two accuracies side by side; "
        "the paired ones in strategies_compared.csv are smaller, and a difference beyond them may "
        "still pass.",
        "One strategy is ahead in accuracy and in loss after healing, too.",
        rules.healed_comparable,
    ),
    Claim(
        10,
        "The order of the few-shot examples makes no difference; more of them help marginally.",
        "Fig. 7",
        ("prompts_compared",),
        "Healed, similarity, means over the fractions, paired over questions: (a) every other "
        f"order changes accuracy by at most {COMPARABLE:.2f} or 2 standard errors; (b) the most "
        f"examples against the fewest: no loss beyond 2 standard errors, and a gain of at most "
        f"{COMPARABLE:.2f} and 2 standard errors. Both: reproduced, one: partly.",
        "Some order changes accuracy, and more examples cost or gain much.",
        further_rules.prompts,
    ),
    Claim(
        11,
        "The seed of healing makes no meaningful difference.",
        "Fig. 8",
        ("healing_seeds", "healing_seeds_compared"),
        "Healed, similarity: (a) for every seed and task, means over the fractions, paired over "
        f"questions: accuracy differs from that of the study's own seed by at most "
        f"{COMPARABLE:.2f} or 2 standard errors; (b) at every fraction normalised losses of all "
        f"seeds lie within {COMPARABLE:.2f}. Both: reproduced, one: partly.",
        "Seeds differ in accuracy and in loss.",
        further_rules.seeds,
    ),
    Claim(
        12,
        "A lower LoRA rank generally gives better accuracy and worse loss.",
        "Fig. 9",
        ("lora_rank",),
        "Lowest rank against highest, means over tasks, strategies and fractions: (a) accuracy is "
        f"higher by more than 2 standard errors, (b) loss is higher in {MOST:.2f} of the cases. "
        "Both: reproduced, one: partly.",
        "Higher ranks are at least as accurate and no worse in loss.",
        further_rules.lower_rank,
    ),
    Claim(
        13,
        "Memory and inference time fall linearly with the number of layers removed.",
        "§1, §5",
        ("cost",),
        "Simple, not in 4-bit: a falling straight line against the fraction explains at least "
        f"{LINEAR:.2f} of the variance (a) of the memory of the weights, (b) of the time to read a "
        "prompt and of the time to write a token. Both: reproduced, one: partly.",
        "Memory or time falls in steps, levels off or does not fall.",
        further_rules.cost,
    ),
    Claim(
        14,
        "A student–teacher loss at the cut makes healing better (a question of the paper's).",
        "§5, Eq. 8",
        ("teacher",),
        "Means over tasks and fractions by seed: with a teacher, loss is lower by more than 2 "
        "standard errors over the seeds and accuracy not lower by more than that: at equal time: "
        "reproduced, at equal steps only: partly.",
        "Even at equal steps the teacher does not lower the loss, or costs accuracy.",
        further_rules.teacher,
    ),
    Claim(
        15,
        "The distances, and the block that they choose, depend on the text (a question of the "
        "paper's).",
        "Footnote 10",
        ("text_blocks",),
        f"Of the choices that {percent(further_rules.SETTLED)} of the resamples agree on, on the "
        f"study's own text and on another, at least {percent(1 - MOST)} are of different blocks: "
        "reproduced, some: partly.",
        "Every text chooses the same blocks wherever it is certain.",
        further_rules.other_texts,
    ),
    Claim(
        16,
        "Larger and deeper models tolerate a larger fraction.",
        "§4.1",
        ("families",),
        "Healed, similarity, every pair of runs of different depth on one task: the deeper one has "
        f"the larger critical fraction in all pairs: reproduced, in {MOST:.2f} of them: partly. "
        "Controls and runs of one checkpoint count as runs, so pairs are not independent; which "
        "there are depends on what was run in this clone.",
        "Shallower models keep their accuracy as long or longer.",
        further_rules.families,
    ),
    Claim(
        17,
        "Healing matters more for BoolQ (reading) than for MMLU (knowledge).",
        "App. A.2",
        ("qa",),
        "Mean gain of healing over the same 4-bit models unhealed, reading less knowledge tasks: "
        "above 2 standard errors: reproduced.",
        "The gain on reading is not larger by more than 2 standard errors.",
        further_rules.healing_by_role,
    ),
]
BY_NUMBER = {claim.number: claim for claim in CLAIMS}


def verdicts(tables: Tables, numbers: list[int] | None = None) -> pd.DataFrame:
    """A row per claim: its words, the verdict with its reason, and how far each condition of the
    rule is from its edge."""
    rows = []
    for claim in CLAIMS if numbers is None else [BY_NUMBER[number] for number in numbers]:
        found = claim.verdict(tables)
        rows.append(
            {
                "claim": claim.number,
                "statement": claim.statement,
                "where": claim.where,
                "verdict": found.verdict,
                "reason": found.reason,
                "margins": found.margins or "–",
                "tables": ", ".join(claim.tables) or "–",
                "rule": claim.rule,
                "fails": claim.fails,
            }
        )
    return pd.DataFrame(rows)
