"""Probabilities of the unpruned model as targets (Hinton et al. 2015). With p its probabilities of
the next token, q those of the pruned model that is trained, and y the token that stands there,

    L = (1 − d) · mean over scored tokens of −ln q(y) + d · mean over scored tokens of KL(p ‖ q),
    KL(p ‖ q) = Σᵥ p(v) (ln p(v) − ln q(v))    over the vocabulary
"""

import torch
from torch import nn

from lib.healing.unpruned import Apart, Shared, read_by


def targets(
    unpruned: Shared | Apart,
    trained: nn.Module,
    inputs: dict[str, torch.Tensor],
    scored: torch.Tensor,
) -> torch.Tensor:
    """Logits of the unpruned model [scored tokens, V]. scored: [rows, length − 1], whether the next
    token counts."""
    with unpruned.whole(trained) as model:
        return model(**read_by(inputs), use_cache=False).logits[:, :-1][scored]


def divergence(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Σ KL(p ‖ q) in nats over tokens, of logits [tokens, V] of both models."""
    found, expected = logits.float().log_softmax(-1), targets.float().log_softmax(-1)
    return (expected.exp() * (expected - found)).sum()
