"""The layers that are missed least: the loss on the calibration text without each of them alone
(Lu et al., §3, as perplexity, whose order is the same). All are left out in one pass."""

from typing import Any

from lib.pruning import strategy


class Strategy(strategy.Strategy):
    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        n_layers = asked.model.config.get_text_config().num_hidden_layers
        whole, *without = asked.losses([(), *((layer,) for layer in range(n_layers))])
        return {"scores": [float(loss - whole) for loss in without], "loss": float(whole)}
