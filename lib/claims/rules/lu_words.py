"""Words that the rules of several claims of Lu et al. share."""

from lib.claims.rules.judging import COMPARABLE
from lib.claims.rules.pairs import WIN

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
