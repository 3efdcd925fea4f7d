"""How fast the study's device is: seconds per token of one layer, or of a product of matrices."""

import copy
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lib.errors import UserError
from lib.models import checkpoints
from lib.models.anatomy import decoder
from lib.pruning.surgery import slice_config
from lib.schema import Study

TRIAL = 2e11  # floating-point operations of one timed pass
ROWS, WIDTH = 512, 4096  # of matrices that are multiplied


def flops(study: Study) -> float:
    """Operations per second in a product of large matrices."""
    device, dtype = checkpoints.device(study), checkpoints.dtype(study)
    rows = torch.randn(ROWS, WIDTH, device=device, dtype=dtype)
    weight = torch.randn(WIDTH, WIDTH, device=device, dtype=dtype)
    return 2 * ROWS * WIDTH * WIDTH / _seconds(lambda: rows @ weight, device)


def of_layer(config: PretrainedConfig, study: Study, per_layer: int) -> tuple[float, float]:
    """Seconds per token of one layer of this shape with made-up weights: forward, and forward and
    back. per_layer: its parameters.

    Raises UserError where it does not fit into memory."""
    device, dtype = checkpoints.device(study), checkpoints.dtype(study)
    one = one_layer(config)
    try:
        model = AutoModelForCausalLM.from_config(one, dtype=dtype, trust_remote_code=False)
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"one layer of this model does not fit here: {error}") from None
    stack = decoder(model.to(device)).requires_grad_(False)
    length = int(min(512, max(16, TRIAL / (2 * per_layer))))
    width = one.get_text_config().hidden_size
    inputs = torch.randn(1, length, width, device=device, dtype=dtype)

    def run(training: bool) -> None:
        entering = inputs.clone().requires_grad_(training)
        with torch.set_grad_enabled(training):
            output = stack(inputs_embeds=entering, use_cache=False).last_hidden_state
            if training:
                output.sum().backward()

    forward, training = (_seconds(lambda both=both: run(both), device) for both in (False, True))
    return forward / length, training / length


def one_layer(config: PretrainedConfig) -> PretrainedConfig:
    """The same shape with one layer and a small vocabulary."""
    one = copy.deepcopy(config)
    slice_config(one, [0])
    text = one.get_text_config()
    text.vocab_size, text.pad_token_id = 256, 0
    return one


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    """The least of three, after one that sets things up."""
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
