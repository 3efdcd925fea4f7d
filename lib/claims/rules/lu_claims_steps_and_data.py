"""What Lu et al. claim about steps and data: the words and the rule of each claim."""

from lib.claims.rules import lu_data, lu_later, lu_schedules
from lib.claims.rules.judging import COMPARABLE, Claim
from lib.claims.rules.lu_layers import ALIKE
from lib.claims.rules.lu_words import ACCURACY, BOTH, OPEN
from lib.claims.rules.reading import percent

CLAIMS = (
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
        tables=("ways_compared",),
        rule=f"At equal prompts and tokens they win. {ACCURACY}",
        undecided=OPEN,
        fails="Others' answers heal as well.",
        check=lu_later.own_answers_heal_better,
    ),
)
