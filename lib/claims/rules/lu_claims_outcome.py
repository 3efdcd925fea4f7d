"""What Lu et al. claim about what is left in the end: the words and the rule of each claim."""

from lib.claims.rules import gromov_ablations, lu_later, lu_outcome
from lib.claims.rules.judging import COMPARABLE, LINEAR, Claim
from lib.claims.rules.lu_words import ACCURACY, OPEN
from lib.claims.rules.reading import percent

CLAIMS = (
    Claim(
        number=33,
        statement="Accuracy falls with the number of layers, on knowledge first.",
        where="Fig. 2",
        tables=("transitions", "qa"),
        rule="On every strategy of the study, unhealed and healed, tasks of knowledge fall to half "
        "at a smaller fraction than the others, means over tasks, by more than two standard "
        "errors.",
        undecided=f"The interval of a difference reaches {COMPARABLE:.2f}.",
        fails="Other tasks fall as early.",
        check=lu_outcome.knowledge_first,
    ),
    Claim(
        number=34,
        statement="With half of the layers gone the model is broken.",
        where="Table A",
        tables=("what_to_train",),
        rule="The deepest half dropped and healed with LoRA, it keeps at most "
        f"{percent(lu_outcome.BROKEN)} of its accuracy above chance.",
        undecided="The interval of the share covers the edge.",
        fails="It keeps more.",
        check=lu_outcome.half_is_broken,
    ),
    Claim(
        number=35,
        statement="What has to be written goes before what has to be chosen.",
        where="Next checks",
        tables=("qa",),
        rule="Unhealed, on every strategy of the study, at 12.5% and at 25%: less is kept of "
        "accuracy above chance on tasks of generation than on others, by more than two standard "
        "errors.",
        undecided=f"The interval of a difference reaches {COMPARABLE:.2f}.",
        fails="Writing lasts as long.",
        check=lu_later.writing_goes_first,
    ),
    Claim(
        number=36,
        statement="The recommended model is comparable to its parent.",
        where="Table 8",
        tables=("what_to_train",),
        rule="The deepest quarter dropped, the head and three layers trained, it keeps at least "
        f"{percent(lu_outcome.KEPT)} of the accuracy above chance.",
        undecided="The interval of the share covers the edge.",
        fails="It keeps less.",
        check=lu_outcome.comparable_to_its_parent,
    ),
    Claim(
        number=37,
        statement="It is better than a model of its size that was trained from scratch.",
        where="Table 8, reviews",
        tables=("what_to_train", "family_scores"),
        rule="It wins against a run of the same family with as many layers, trained from scratch, "
        "which the study names. The two are asked apart, so errors are not paired.",
        undecided=OPEN,
        fails="From scratch is as good.",
        check=lu_outcome.better_than_scratch,
    ),
    Claim(
        number=38,
        statement="It takes a million times fewer tokens.",
        where="§5",
        tables=("training_costs", "what_to_train", "family_scores"),
        rule="Both: the tokens that the parent was trained on over those that healing read, all "
        f"epochs and no padding, are at least 10^{lu_outcome.FEWER}; and claim 37 is a win or a "
        "tie. The parent's own tokens are part of what it took.",
        undecided="Claim 37 is undecided, and the ratio is large enough.",
        fails="The ratio is smaller, or the model from scratch is better.",
        check=lu_outcome.fewer_tokens,
    ),
    Claim(
        number=39,
        statement="Choosing the layers so explains the lead over block influence.",
        where="abstract",
        tables=("layers_compared", "recipes_compared"),
        rule="Healed with one recipe at 25%, reverse-order wins against block-influence. The "
        f"reason gives what the recipe adds. {ACCURACY}",
        undecided=OPEN,
        fails="What is trained explains it.",
        check=lu_outcome.selection_alone,
    ),
    Claim(
        number=40,
        statement="What is saved is proportional to the layers dropped.",
        where="Table 9",
        tables=("cost",),
        rule="As claim 13 of the first paper: straight lines explain at least "
        f"{LINEAR:.2f} of the variance of memory and of times.",
        undecided="The repeats of a timing scatter too much.",
        fails="Memory or time falls in steps, levels off or does not fall.",
        check=gromov_ablations.cost,
    ),
    Claim(
        number=41,
        statement="Deep layers matter less because their gradients are small.",
        where="2026 version",
        tables=("layer_measures", "layer_predictors"),
        rule="Beyond the untrained twin: (a) the residual stream grows with depth, (b) gradients "
        "by layer fall with it, (c) layers of small gradients cost least when they go; rank "
        f"correlations of at least {lu_later.ORDERED}. All: reproduced, some: partly.",
        undecided="The interval of a rank correlation covers its edge.",
        fails="Gradients say nothing about what a layer is worth.",
        check=lu_later.small_gradients,
    ),
    Claim(
        number=42,
        statement="It holds on other families of models.",
        where="Open questions",
        tables=("family_verdicts",),
        rule=f"Claims {', '.join(map(str, lu_outcome.ACROSS))} hold on more than half of the other "
        f"runs, by a sign test of at least {lu_outcome.FAMILIES} that decide each. All: "
        "reproduced, some: partly. Controls and runs of one checkpoint count as runs.",
        undecided="Runs disagree, and there are too few of them to tell.",
        fails="On most runs they do not hold.",
        check=lu_outcome.across_families,
    ),
)
