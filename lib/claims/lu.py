"""The claims of Lu et al.: what is said, where, and the rule that decides it on a study."""

from lib.claims.rules import (
    gromov_ablations,
    lu_data,
    lu_last_layer,
    lu_layers,
    lu_outcome,
    lu_recipes,
    lu_schedules,
)
from lib.claims.rules.judging import COMPARABLE, LINEAR, Claim, Paper
from lib.claims.rules.lu_layers import ALIKE, DRAWS, RANKED
from lib.claims.rules.pairs import WIN
from lib.claims.rules.reading import percent

ACCURACY = (
    "Accuracy is the mean over the tasks that the unpruned model can do, differences paired over "
    f"questions. A win is a lead of more than {WIN:.2f} and of more than two standard errors, with "
    "Holm's correction where there are several. A tie means that the interval of two standard "
    f"errors lies within {COMPARABLE:.2f}."
)
BOTH = "Both: reproduced, one: partly."
AT_BOTH = f"at 25% and at 50% of the layers. {BOTH}"
OPEN = (
    "Some difference is neither a win, nor a loss, nor a tie: there are too few questions for any."
)

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
    Claim(
        number=12,
        statement="QLoRA is a little worse than LoRA.",
        where="Tables 2, B",
        tables=("recipes_compared",),
        rule="On at least two thirds of the prunings, accuracy is lower by more than two standard "
        "errors.",
        undecided="It may be lower on two thirds, within the errors.",
        fails="On most prunings 4-bit costs nothing that can be seen.",
        check=lu_recipes.qlora_hurts,
    ),
    Claim(
        number=13,
        statement="To train the output head alone is better than LoRA.",
        where="Table 2",
        tables=("recipes_compared",),
        rule="With the deepest layers dropped (reverse-order) the head, with the final norm or "
        f"without, wins against LoRA at every fraction. {ACCURACY}",
        undecided=OPEN,
        fails="LoRA is as good, or better.",
        check=lu_recipes.head_beats_lora,
    ),
    Claim(
        number=14,
        statement="To train the head and the last three layers is better than LoRA.",
        where="Tables 2, B, C",
        tables=("recipes_compared",),
        rule="It wins at 25% and at 50%, with reverse-order and with some strategy that keeps the "
        f"last layer. {ACCURACY}",
        undecided=OPEN,
        fails="Somewhere LoRA is as good, or better.",
        check=lu_recipes.head_and_three,
    ),
    Claim(
        number=15,
        statement="It is better also where each recipe has its own best learning rate.",
        where="reviews",
        tables=("recipes_compared", "learning_rates"),
        rule="As claim 14, where both are trained at the rate of lowest loss among several, on "
        "held-out text of the kind that healing reads.",
        undecided=OPEN,
        fails="With a rate of its own LoRA is as good, or better.",
        check=lu_recipes.own_rates,
    ),
    Claim(
        number=16,
        statement="More trained layers repair more, and three are enough.",
        where="Table 2",
        tables=("recipes_compared",),
        rule="With reverse-order: (a) none of the head with one, two or three last layers is worse "
        "than with one layer less, by more than two standard errors; (b) three tie with two. "
        + BOTH,
        undecided="The interval of a difference covers its edge.",
        fails="A further layer harms, and the third one still changes much.",
        check=lu_recipes.three_are_enough,
    ),
    Claim(
        number=17,
        statement="It is the pruned model that wants its last layers trained.",
        where="Table 3",
        tables=("recipes_compared",),
        rule="The lead of the head and three layers over LoRA at 25% (reverse-order) exceeds that "
        "on the unpruned model by more than two standard errors, and there it does not lose.",
        undecided="The interval of the difference covers both 0 and what would be small.",
        fails="The unpruned model gains as much.",
        check=lu_recipes.pruned_wants_it,
    ),
    Claim(
        number=18,
        statement="Are the layers at the cut better to train than the last ones?",
        where="reviews",
        tables=("recipes_compared",),
        rule="Where a strategy keeps the last layer, training three layers at the cut wins against "
        "training the last three, the head in both.",
        undecided=OPEN,
        fails="The last layers do as well, or better.",
        check=lu_recipes.last_or_cut,
        question=True,
    ),
    Claim(
        number=19,
        statement="The head alone means the head alone.",
        where="§3, code",
        tables=("recipes_compared",),
        rule="The head with the final norm ties with the head without it on every pruning.",
        undecided=f"The interval of the difference covers {COMPARABLE:.2f}.",
        fails="The norm, which the released code trains too, makes a difference.",
        check=lu_recipes.head_alone,
    ),
    Claim(
        number=20,
        statement="Training the head and a few layers is faster than LoRA, at like memory.",
        where="Table 4",
        tables=("training_costs",),
        rule="(a) Its mean training time is below LoRA's, (b) within "
        f"{percent(lu_recipes.NEAR_TIME)} of what counting products of matrices predicts, (c) "
        f"memory within {percent(lu_recipes.NEAR_MEMORY)} of LoRA's. All: reproduced, (a): partly.",
        undecided="The mean of the times is within two standard errors of LoRA's.",
        fails="It takes as long as LoRA.",
        check=lu_recipes.partial_is_faster,
    ),
    Claim(
        number=21,
        statement="Pruning step by step brings nothing.",
        where="Tables 5, C",
        tables=("steps_compared",),
        rule="With the whole recipe after each step, so with as many times the training as there "
        f"are steps, it ties with or loses to all at once on every schedule. {ACCURACY}",
        undecided=OPEN,
        fails="Some schedule wins.",
        check=lu_schedules.as_run,
    ),
    Claim(
        number=22,
        statement="It brings nothing at equal tokens either.",
        where="§3",
        tables=("steps_compared",),
        rule="As claim 21, against all at once, trained on the same text as often as there are "
        "steps.",
        undecided=OPEN,
        fails="Some schedule wins.",
        check=lu_schedules.at_equal_tokens,
    ),
    Claim(
        number=23,
        statement="Do steps help where few layers are dropped?",
        where="Open questions",
        tables=("steps_compared",),
        rule="At equal tokens, on every schedule of at least three numbers of layers: steps win at "
        f"up to {percent(lu_schedules.LOW)}, and what they gain falls with the fraction, by more "
        "than two standard errors.",
        undecided=OPEN,
        fails="They win nowhere, or everywhere alike.",
        check=lu_schedules.at_low_rates,
        question=True,
    ),
    Claim(
        number=24,
        statement="Taylor scores with a layer at a time and the last layers trained collapse.",
        where="Table 5",
        tables=("steps_compared",),
        rule="At 25%, a layer at a time, healed with the head and three layers: (a) it is worse "
        f"than at once by at least {COMPARABLE:.2f} and by more than two standard errors, (b) at "
        f"least {percent(lu_schedules.TRAINED)} of the layers that went later had just been "
        "trained, which explains it. Both: reproduced, (a): partly.",
        undecided="The interval of the difference covers its edge.",
        fails="It does as well, or what had just been trained stays.",
        check=lu_schedules.taylor_collapses,
    ),
    Claim(
        number=25,
        statement="The two ways end in different representations.",
        where="Fig. B",
        tables=("steps_aligned",),
        rule="On every schedule, at the most layers dropped, 1 − CKA of the model in steps and the "
        f"one at once, mean over the layers, is more than {lu_schedules.FURTHER:g} times that of "
        "two seeds of healing at once.",
        undecided="The interval of the difference covers 0.",
        fails="They differ as two seeds do.",
        check=lu_schedules.other_representations,
    ),
    Claim(
        number=26,
        statement="Which layers are chosen depends on the samples on which they are scored.",
        where="Tables 6, D",
        tables=("calibration_sizes",),
        rule=f"Scored on {lu_data.WINDOWS} windows, again and again on others, the sets of two "
        f"of at least {lu_data.DRAWS} draws have a mean Jaccard index below {ALIKE}. Every "
        "strategy: reproduced, some: partly.",
        undecided="The interval of an index, of a jackknife over draws, covers the edge.",
        fails="Draws choose the same layers.",
        check=lu_data.depends_on_samples,
    ),
    Claim(
        number=27,
        statement="More samples choose better layers.",
        where="Table 6",
        tables=("calibration_sizes",),
        rule="Unhealed, mean accuracy over the draws rises with the number of windows: Spearman's "
        f"ρ is positive with p < {lu_data.CHANCE} among all orders. Every strategy: reproduced, "
        "some: partly.",
        undecided="It does not, and the most windows may still gain as much as "
        f"{COMPARABLE:.2f} on the fewest.",
        fails="The number of windows makes no difference.",
        check=lu_data.more_is_better,
    ),
    Claim(
        number=28,
        statement="What layers are scored on matters more than how they are searched for.",
        where="after the paper",
        tables=("calibration_texts",),
        rule="Of two searches on at least two texts: (a) accuracy varies more between texts than "
        f"between searches, (b) sets differ more. {BOTH}",
        undecided="(a) flips within the errors of the accuracies. (b) Never: sets have no error.",
        fails="Searches differ more than texts do.",
        check=lu_data.text_matters_more,
    ),
    Claim(
        number=29,
        statement="It matters which data a pruned model is healed on.",
        where="Table 7",
        tables=("data_compared",),
        rule=f"Of at least {lu_data.DATA} data sets, {lu_data.SEEDS} seeds each, what is trained "
        "equal and the loss taken on the same part of a row, some pair is a win. How much was read "
        f"of each stands in the table healed_on. {ACCURACY}",
        undecided=OPEN,
        fails="All data do as well.",
        check=lu_data.data_matter,
    ),
    Claim(
        number=30,
        statement="Does it depend on how much is pruned which data are best?",
        where="Open questions",
        tables=("data_interaction",),
        rule="What some data set gains on another with fewer layers dropped differs from what it "
        f"gains with more: a win, one way or the other. {ACCURACY}",
        undecided=OPEN,
        fails="The order of the data stays.",
        check=lu_data.data_by_rate,
        question=True,
    ),
    Claim(
        number=31,
        statement="Training on exam questions hurts what they do not ask.",
        where="Table 7",
        tables=("data_compared",),
        rule="Healed on exam questions, with the loss on the answers, a model is worse on tasks of "
        "reading than healed on any other data, by more than two standard errors.",
        undecided=f"The interval of a difference reaches {COMPARABLE:.2f}.",
        fails="Exam questions heal as well.",
        check=lu_data.exam_hurts,
    ),
    Claim(
        number=32,
        statement="Answers that the unpruned model wrote heal better than those of others.",
        where="after the paper",
        tables=(),
        rule=f"At equal prompts and tokens they win. {ACCURACY}",
        undecided=OPEN,
        fails="Others' answers heal as well.",
        check=lu_outcome.not_yet,
    ),
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
        tables=(),
        rule="At 12.5% and at 25% less is kept of accuracy above chance on tasks of generation "
        "than on others, by more than two standard errors.",
        undecided=OPEN,
        fails="Writing lasts as long.",
        check=lu_outcome.not_yet,
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
        tables=(),
        rule="Beyond the untrained twin: (a) the residual stream grows with depth, (b) gradients "
        "by layer fall with it, (c) layers of small gradients cost least when they go. All.",
        undecided="The interval of a rank correlation covers its edge.",
        fails="Gradients say nothing about what a layer is worth.",
        check=lu_outcome.not_yet,
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
PAPER = Paper(
    title="Reassessing Layer Pruning in LLMs: New Insights and Methods",
    cite="Lu et al., 2024, arXiv 2411.15558",
    claims=CLAIMS,
)
