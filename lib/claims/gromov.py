"""The claims of Gromov et al.: what is said, where, and the rule that decides it on a study."""

from lib.claims.rules import gromov_ablations, gromov_curves, gromov_distances
from lib.claims.rules.gromov_ablations import SETTLED
from lib.claims.rules.judging import (
    COMPARABLE,
    CONTRAST,
    FLAT_FRACTION,
    JUMP,
    LINEAR,
    MOST,
    NEAR,
    Claim,
    Paper,
)
from lib.claims.rules.reading import FLAT_LOSS, percent

BOTH = "Both: reproduced, one: partly."
SIDE_BY_SIDE = (
    "The standard errors are those of two numbers side by side; paired ones would be smaller."
)
UNLIKE = f"the interval of the difference covers {COMPARABLE:.2f}"
NEITHER = f"the interval of two standard errors covers both 0 and {COMPARABLE:.2f}"
SCATTER = (
    f"some {{}} drawn within their errors explain less than {LINEAR:.2f}, more than 1 draw in 40, "
    "and with every point two standard errors nearer to the line it explains as much."
)

CLAIMS = (
    Claim(
        number=1,
        statement="Some blocks can be removed with accuracy on questions nearly unchanged.",
        where="Fig. 2",
        tables=("qa",),
        rule=f"Healed, similarity: accuracy loses at most {FLAT_LOSS:.2f} against the unpruned "
        f"model healed the same way up to a fraction of at least {FLAT_FRACTION:.2f}; on every "
        "task that the unpruned model can do: reproduced, on some: partly.",
        undecided="With every loss of accuracy two standard errors larger a flat region ends "
        f"before {FLAT_FRACTION:.2f}, and with every one as much smaller it does not. "
        + SIDE_BY_SIDE,
        fails="Accuracy drops by more than the margin before that fraction on every task.",
        check=gromov_curves.flat_region,
    ),
    Claim(
        number=2,
        statement="Accuracy falls to chance sharply, at a critical fraction.",
        where="Fig. 2, 6",
        tables=("transitions",),
        rule="Healed, similarity: the fitted 10–90% width is smaller than the flat region before "
        "it (critical fraction less half the width); on every fitted task: reproduced, on some: "
        "partly.",
        undecided="The 95% intervals of critical fraction and width, taken as independent, allow "
        "both a width below the flat region and one above it.",
        fails="Every fitted curve falls over a stretch as long as its flat region, or longer.",
        check=gromov_curves.sharp,
    ),
    Claim(
        number=3,
        statement="Healing moves the transition to slightly larger fractions and helps most on "
        "loss.",
        where="Fig. 2, 3",
        tables=("transitions", "loss"),
        rule="(a) More than half of the fitted curves have their critical fraction moved up "
        "against the control, the same models unhealed; (b) loss is lower by more than 2 standard "
        f"errors at every healed fraction of at least 0.25. {BOTH}",
        undecided="(a) Shifts may have the other sign, as likely as their 95% intervals say; taken "
        f"as independent, the interval of the share covers one half. (b) Some loss is not lower, "
        f"but {NEITHER} of ln V: it may be the same or not. " + SIDE_BY_SIDE,
        fails="Transitions stay or move to smaller fractions, and some healed loss is no lower.",
        check=gromov_curves.healing_moves,
    ),
    Claim(
        number=4,
        statement="Unhealed loss rises to ln V near the fraction where accuracy falls.",
        where="Fig. 3",
        tables=("loss", "transitions"),
        rule="Unhealed, similarity: the fraction where normalised loss is half-way to 1 is within "
        f"{NEAR:.2f} of the critical fraction of some task (a) and within {2 * NEAR:.2f} of all "
        f"(b). {BOTH}",
        undecided="The 95% interval of a distance between the two fractions covers "
        f"{NEAR:.2f} (a) or {2 * NEAR:.2f} (b); or the loss gets half-way only within its error.",
        fails="Loss gets half-way to ln V far from where accuracy falls, or never.",
        check=gromov_curves.loss_transition,
    ),
    Claim(
        number=5,
        statement="Healed loss grows slowly and about linearly, with no jump where accuracy falls.",
        where="Fig. 3",
        tables=("loss", "transitions"),
        rule="Healed, similarity, where some accuracy falls: (a) a straight line explains at least "
        f"{LINEAR:.2f} of the variance, (b) no step between neighbouring fractions is steeper than "
        f"{JUMP:.0f} times the mean slope. {BOTH}",
        undecided=f"(a) {SCATTER.format('losses')} (b) The interval of the steepest step covers "
        "its edge. The losses are of one text, so that what they share counts as scatter, too.",
        fails="Loss bends or jumps: a straight line fits badly and one step is steep.",
        check=gromov_curves.loss_continuous,
    ),
    Claim(
        number=6,
        statement="Deeper blocks are more similar than shallow ones.",
        where="Fig. 4",
        tables=("angular_distances", "untrained_distances"),
        rule=f"Blocks of n ≤ L/2 without the last layer: mean distance in the shallow half at "
        f"least {CONTRAST} times that in the deep half, and this ratio at least {CONTRAST} times "
        "that of the untrained twin: reproduced; larger than the twin's by less: partly.",
        undecided="The interval of a ratio, from the standard errors of the distances over the "
        "sequences, covers its edge. Another twin from another seed is not in it.",
        fails="Deep blocks are not clearly more similar, or are so in the untrained twin as well.",
        check=gromov_distances.deeper_similar,
    ),
    Claim(
        number=7,
        statement="Blocks that include the last layer are (nearly) the most dissimilar: never drop "
        "it.",
        where="Fig. 4",
        tables=("angular_distances",),
        rule=f"Rows n ≤ L/2: (a) in {MOST:.2f} of them the block with the last layer lies in the "
        "top tenth of the row's range, (b) in all it is farther apart than the block one layer "
        f"earlier; the last layer's output before the final norm. {BOTH}",
        undecided="(a) Rows may be on the other side of the top tenth, as likely as the errors of "
        f"their distances say, and the interval of the share covers {MOST:.2f}. (b) In some row "
        "the two blocks are within two standard errors of each other, in none clearly reversed.",
        fails="Rows end near their minimum, and taking in the last layer makes some block more "
        "similar.",
        check=gromov_distances.last_layer,
    ),
    Claim(
        number=8,
        statement="Unhealed, the simple heuristic is much worse than the similarity-informed one.",
        where="Fig. 5",
        tables=("qa", "loss"),
        rule=f"Means over fractions up to 0.6: (a) similarity leads in accuracy by at least "
        f"{COMPARABLE:.2f} on some task, (b) in normalised loss by {COMPARABLE:.2f}. {BOTH}",
        undecided=f"The interval of a lead covers {COMPARABLE:.2f}. " + SIDE_BY_SIDE,
        fails="Neither accuracy nor loss tells the strategies apart.",
        check=gromov_curves.simple_worse,
    ),
    Claim(
        number=9,
        statement="Healed, the two strategies are comparable.",
        where="Fig. 5",
        tables=("qa", "loss"),
        rule=f"Means over the healed fractions: (a) accuracies differ by at most {COMPARABLE:.2f} "
        f"on every task, (b) normalised losses by at most {COMPARABLE:.2f}. {BOTH}",
        undecided=f"{UNLIKE[0].upper()}{UNLIKE[1:]}: too few questions show neither that the "
        "strategies are alike nor that they are not. " + SIDE_BY_SIDE,
        fails="One strategy is ahead in accuracy and in loss after healing, too.",
        check=gromov_curves.healed_comparable,
    ),
    Claim(
        number=10,
        statement="The order of the few-shot examples makes no difference; more of them help "
        "marginally.",
        where="Fig. 7",
        tables=("prompts_compared",),
        rule="Healed, similarity, means over the fractions, paired over questions: (a) every other "
        f"order changes accuracy by at most {COMPARABLE:.2f}; (b) the most examples against the "
        f"fewest: no loss beyond 2 standard errors, and a gain of at most {COMPARABLE:.2f}. {BOTH}",
        undecided=f"(a) For some order {UNLIKE}. (b) The interval covers a gain of "
        f"{COMPARABLE:.2f}, or a loss of as much that is not seen.",
        fails="Some order changes accuracy, and more examples cost or gain much.",
        check=gromov_ablations.prompts,
    ),
    Claim(
        number=11,
        statement="The seed of healing makes no meaningful difference.",
        where="Fig. 8",
        tables=("healing_seeds", "healing_seeds_compared"),
        rule="Healed, similarity: (a) for every seed and task, means over the fractions, paired "
        "over questions: accuracy differs from that of the study's own seed by at most "
        f"{COMPARABLE:.2f}; (b) at every fraction normalised losses of all seeds lie within "
        f"{COMPARABLE:.2f}. {BOTH}",
        undecided=f"(a) For some seed and task {UNLIKE}. (b) So does that of the spread of the "
        "losses.",
        fails="Seeds differ in accuracy and in loss.",
        check=gromov_ablations.seeds,
    ),
    Claim(
        number=12,
        statement="A lower LoRA rank generally gives better accuracy and worse loss.",
        where="Fig. 9",
        tables=("lora_rank",),
        rule="Lowest rank against highest, means over tasks, strategies and fractions: (a) "
        f"accuracy is higher by more than 2 standard errors, (b) loss is higher in {MOST:.2f} of "
        f"the cases. {BOTH}",
        undecided=f"(a) It is not higher, but {NEITHER}. (b) Differences may have the other "
        f"sign, as likely as their errors say, and the interval of the share covers {MOST:.2f}. "
        + SIDE_BY_SIDE,
        fails="Higher ranks are at least as accurate and no worse in loss.",
        check=gromov_ablations.lower_rank,
    ),
    Claim(
        number=13,
        statement="Memory and inference time fall linearly with the number of layers removed.",
        where="§1, §5",
        tables=("cost",),
        rule="Simple, in the study's own number format: a falling straight line against the "
        f"fraction explains at least {LINEAR:.2f} of the variance (a) of the memory of the "
        f"weights, (b) of the time to read a prompt and of the time to write a token. {BOTH}",
        undecided=f"(b) The repeats scatter too much: {SCATTER.format('times')} Or it cannot be "
        "told whether the line falls. (a) Nothing: bytes are counted.",
        fails="Memory or time falls in steps, levels off or does not fall.",
        check=gromov_ablations.cost,
    ),
    Claim(
        number=14,
        statement="Does a student–teacher loss at the cut make healing better?",
        where="§5, Eq. 8",
        tables=("teacher",),
        rule="Means over tasks and fractions by seed, at equal time: with a teacher, loss is lower "
        "by more than 2 standard errors over the seeds and accuracy not lower by more than that: "
        "yes. If it is better at equal steps only, the answer is no: plain healing gets as far in "
        "the same time.",
        undecided=f"Loss is not lower, but {NEITHER} of ln V; or accuracy may be lower by "
        f"{COMPARABLE:.2f} though that is not seen. Over two or three seeds two standard errors "
        "are fewer than 95%.",
        fails="At equal time the teacher does not lower the loss, or costs accuracy.",
        check=gromov_ablations.teacher,
        question=True,
    ),
    Claim(
        number=15,
        statement="Do the distances, and the block that they choose, depend on the text?",
        where="Footnote 10",
        tables=("text_blocks",),
        rule=f"Of the choices that {percent(SETTLED)} of the resamples agree on, on the study's "
        f"own text and on another, at least {percent(1 - MOST)} are of different blocks: yes; "
        "none: no.",
        undecided=f"Some choices differ, but fewer than {percent(1 - MOST)}: each is certain to "
        f"{percent(SETTLED)} only, so a few may differ by chance.",
        fails="Every text chooses the same blocks wherever it is certain.",
        check=gromov_ablations.other_texts,
        question=True,
    ),
    Claim(
        number=16,
        statement="Larger and deeper models tolerate a larger fraction.",
        where="§4.1",
        tables=("families",),
        rule="Healed, similarity, every pair of runs of different depth on one task: the deeper "
        f"one has the larger critical fraction in all pairs: reproduced, in {MOST:.2f} of them: "
        "partly. Controls and runs of one checkpoint count as runs, so pairs are not independent; "
        "which there are depends on what was run in this clone.",
        undecided="Pairs may be the other way round, as likely as the 95% intervals of their "
        f"fractions say: in all pairs or not, or the interval of their share covers {MOST:.2f}.",
        fails="Shallower models keep their accuracy as long or longer.",
        check=gromov_ablations.families,
    ),
    Claim(
        number=17,
        statement="Healing matters more for BoolQ (reading) than for MMLU (knowledge).",
        where="App. A.2",
        tables=("qa",),
        rule="Mean gain of healing over the control, the same models unhealed, reading less "
        "knowledge tasks: above 2 standard errors: reproduced.",
        undecided=f"It is not above them, but {NEITHER}. " + SIDE_BY_SIDE,
        fails="The gain on reading is not larger, or by less than would matter.",
        check=gromov_ablations.healing_by_role,
    ),
)

PAPER = Paper(
    title="The Unreasonable Ineffectiveness of the Deeper Layers",
    cite="Gromov et al., ICLR 2025, arXiv 2403.17887",
    claims=CLAIMS,
)
