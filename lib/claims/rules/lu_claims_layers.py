"""What Lu et al. claim about which layers go: the words and the rule of each claim."""

from lib.claims.rules import lu_last_layer, lu_layers
from lib.claims.rules.judging import Claim
from lib.claims.rules.lu_layers import ALIKE, DRAWS, RANKED
from lib.claims.rules.lu_words import ACCURACY, AT_BOTH, BOTH, OPEN

CLAIMS = (
    Claim(
        number=1,
        statement="Dropping the deepest layers, the last one included, is the best way to choose a "
        "quarter of them.",
        where="Table 1",
        tables=("layers_compared",),
        rule="Healed at 25%, reverse-order wins against or ties each of magnitude, taylor, "
        "perplexity, block-influence and the mean of random draws: reproduced. It loses to none, "
        f"and some are undecided or not healed: partly. {ACCURACY}",
        undecided="All that are healed are undecided: there are too few questions.",
        fails="Another strategy wins.",
        check=lu_layers.best_at_a_quarter,
    ),
    Claim(
        number=2,
        statement="Its lead over perplexity is general.",
        where="Table 1",
        tables=("layers_compared",),
        rule="Healed at 25%, reverse-order wins against perplexity on tasks of knowledge and on "
        f"tasks of reading. {BOTH}",
        undecided=OPEN,
        fails="It leads on neither.",
        check=lu_layers.general_lead,
    ),
    Claim(
        number=3,
        statement="It is the best way to choose half of the layers, too.",
        where="Table A",
        tables=("layers_compared",),
        rule="As claim 1, at 50%.",
        undecided="All that are healed are undecided: there are too few questions.",
        fails="Another strategy wins.",
        check=lu_layers.best_at_half,
    ),
    Claim(
        number=4,
        statement="It needs no data: unhealed it does as well as a greedy search.",
        where="2026 version",
        tables=("layers_compared",),
        rule=f"Unhealed, reverse-order wins against or ties greedy in accuracy, {AT_BOTH}",
        undecided=OPEN,
        fails="The search wins at both.",
        check=lu_layers.needs_no_data,
    ),
    Claim(
        number=5,
        statement="Block influence by token, and of all tokens as one vector, are one metric.",
        where="§3, code",
        tables=("agreement",),
        rule=f"At 25%: (a) the Jaccard index of the two sets is at least {ALIKE}, (b) Kendall's τ "
        f"of the scores at least {ALIKE}. {BOTH}",
        undecided="Never: both are computed from the same text.",
        fails="A few tokens of large norm choose other layers.",
        check=lu_layers.one_metric,
    ),
    Claim(
        number=6,
        statement="A guard of the first and last layers decides whether Taylor scores work.",
        where="Table 1, code",
        tables=("layers_compared",),
        rule="Unhealed, where the two drop different layers, taylor-guarded wins against taylor, "
        + AT_BOTH,
        undecided=OPEN,
        fails="The guard gains nothing.",
        check=lu_layers.guard_decides,
    ),
    Claim(
        number=7,
        statement="The magnitude of weights says nothing about layers.",
        where="Table 1",
        tables=("layers_compared", "which_layers"),
        rule=f"Unhealed, the mean of at least {DRAWS} random draws wins against or ties magnitude, "
        f"{AT_BOTH} The error of drawing counts, too.",
        undecided=OPEN,
        fails="Magnitude wins against layers drawn by chance.",
        check=lu_layers.magnitude_tells_nothing,
    ),
    Claim(
        number=8,
        statement="One random draw is no baseline.",
        where="Table 1, Fig. A",
        tables=("which_layers",),
        rule=f"Unhealed, the accuracies of at least {DRAWS} draws scatter (standard deviation) by "
        f"at least as much as two other strategies differ in the median, {AT_BOTH} The reason says "
        "how many draws reverse-order leaves behind; 95% would be more than chance.",
        undecided="The interval of the scatter and of the accuracies covers the edge.",
        fails="Draws differ less among themselves than strategies do.",
        check=lu_layers.one_draw_says_nothing,
    ),
    Claim(
        number=9,
        statement="Do strategies rank the same before and after healing?",
        where="reviews",
        tables=("which_layers",),
        rule="Every two rankings by accuracy, unhealed and healed with each recipe, at 25% and at "
        f"50%: Kendall's τ is at least {RANKED}.",
        undecided="The interval of some τ, from the errors of the accuracies, covers the edge, and "
        "none lies below it.",
        fails="Healing changes who leads.",
        check=lu_layers.same_ranking,
        question=True,
    ),
    Claim(
        number=10,
        statement="Whether the last layer may go depends on how the rest is healed.",
        where="§3, and the first paper's §4.4",
        tables=("last_layer", "last_layer_interaction"),
        rule="Keeping the last layer (simple) against dropping it (reverse-order), at 25% and at "
        "50%: (a) unhealed it wins, (b) healed with the head and the last layers (partial) it ties "
        "or loses, (c) the first advantage exceeds the second by more than two standard errors. "
        "All at both: reproduced, and both papers are right; (c) alone at both: partly. "
        + ACCURACY,
        undecided="With what is undecided taken one way the verdict is another than with it taken "
        "the other way.",
        fails="Healing does not change which is better.",
        check=lu_last_layer.last_layer,
    ),
    Claim(
        number=11,
        statement="Do all strategies choose layers of their own?",
        where="Tables 1, D",
        tables=("agreement",),
        rule="At 25% no two drop the same layers. Where two do they share one measurement, and no "
        "claim is made from their difference.",
        undecided="Never: sets of layers are compared, which have no error.",
        fails="Two strategies are one here.",
        check=lu_layers.sets_of_their_own,
        question=True,
    ),
)
