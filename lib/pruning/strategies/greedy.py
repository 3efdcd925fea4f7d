"""One layer after the other, each time the one that is missed least by then: after every removal
each layer that is left is left out in turn, and the loss on the calibration text taken. Sets need
not be contiguous, and that of n layers holds that of n − 1."""

from typing import Any

from lib.pruning import strategy


class Strategy(strategy.Strategy):
    by_loss = True

    def sets(self, n_layers: int) -> list[list[tuple[int, ...]]]:
        """As if the first layer went each time."""
        return [
            [(*range(gone), layer) for layer in range(gone, n_layers)]
            for gone in range(n_layers - 1)
        ]

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        """`scores`: when each layer goes, the one that stays last; `losses`: after each removal."""
        left = list(range(asked.model.config.get_text_config().num_hidden_layers))
        order: list[int] = []
        losses: list[float] = []
        while len(left) > 1:
            found = asked.losses([(*order, layer) for layer in left])
            best = min(range(len(left)), key=lambda i: (found[i], -left[i]))  # ties to the deepest
            losses.append(float(found[best]))
            order.append(left.pop(best))
        scores = [float((order + left).index(layer)) for layer in sorted(order + left)]
        return {"scores": scores, "losses": losses}
