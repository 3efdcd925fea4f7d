"""A linear map, folded into the FFN of the layer before the cut (ReplaceMe, arXiv 2505.02819):

    min over T of Σ ‖ (x⁽ˢ⁾ − m) + Tᵀ m − x⁽ᵗ⁾ ‖²,   W ← Tᵀ W,  b ← Tᵀ b,   m = W h + b

m is what that FFN adds to the residual stream. With T = I + D, G = Σ m mᵀ and r = x⁽ᵗ⁾ − x⁽ˢ⁾ the
minimum is (G + λ I) D = Σ m rᵀ. The ridge λ draws D towards 0, that is T towards leaving things as
they are. So on the calibration text the error is never above that of no repair.
"""

from typing import Any

import torch
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.models.residual import last_writer, weight
from lib.pruning import repair
from lib.pruning.dropped import Dropped

RIDGE = 1e-6  # λ, in units of the mean of G's diagonal


class Repair(repair.Repair):
    def fold(
        self, model: PreTrainedModel, block: Dropped, windows: torch.Tensor, batch: int
    ) -> dict[str, Any]:
        if block.start == 0:
            raise UserError(
                f"repair {self.name}: is folded into the layer before those that are dropped, and "
                f"there is none before layers {block}"
            )
        writer = last_writer(model, block.start - 1, windows[0])
        halves = repair.measure(model, block, windows, batch, writer)
        change, report = repair.fitted(halves, _solved, _left)
        with torch.no_grad():
            for part in (weight(writer), writer.bias):
                if part is not None:
                    old = part.double() if part.device == change.device else part.cpu().double()
                    part.copy_(old + change.T @ old)
        return report


def _solved(sums: repair.Sums) -> torch.Tensor:
    """D [width, width], in float64. An FFN that adds nothing changes nothing."""
    gram = sums.gram
    ridge = RIDGE * float(gram.diagonal().mean()) or 1.0
    return torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), sums.cross)


def _left(sums: repair.Sums, change: torch.Tensor) -> float:
    """Σ ‖x⁽ˢ⁾ + Dᵀ m − x⁽ᵗ⁾‖²"""
    return sums.gap + float((change * (sums.gram @ change - 2 * sums.cross)).sum())
