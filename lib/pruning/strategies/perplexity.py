"""The layers that are missed least: the loss on the calibration text without each of them alone
(Lu et al., §3, as perplexity, whose order is the same). All are left out in one pass."""

from typing import Any

from lib.pruning import strategy


class Strategy(strategy.Strategy):
    by_loss = True

    def sets(self, n_layers: int) -> list[list[tuple[int, ...]]]:
        return [[(), *((layer,) for layer in range(n_layers))]]

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        (sets,) = self.sets(asked.model.config.get_text_config().num_hidden_layers)
        whole, *without = asked.losses(sets)
        return {"scores": [float(loss - whole) for loss in without], "loss": float(whole)}
