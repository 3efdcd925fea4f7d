"""What Lu et al. claim about what is trained: the words and the rule of each claim."""

from lib.claims.rules import lu_recipes
from lib.claims.rules.judging import COMPARABLE, Claim
from lib.claims.rules.lu_words import ACCURACY, BOTH, OPEN
from lib.claims.rules.reading import percent

CLAIMS = (
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
)
