"""The claims of Lu et al.: what is said, where, and the rule that decides it on a study."""

from lib.claims.rules import (
    lu_claims_layers,
    lu_claims_outcome,
    lu_claims_steps_and_data,
    lu_claims_training,
)
from lib.claims.rules.judging import Paper

PAPER = Paper(
    title="Reassessing Layer Pruning in LLMs: New Insights and Methods",
    cite="Lu et al., 2024, arXiv 2411.15558",
    claims=(
        *lu_claims_layers.CLAIMS,
        *lu_claims_training.CLAIMS,
        *lu_claims_steps_and_data.CLAIMS,
        *lu_claims_outcome.CLAIMS,
    ),
)
