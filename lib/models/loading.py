"""Reading a checkpoint's tensors, none missing and none left over."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from lib.errors import UserError
from lib.models import tied

logging.disable_progress_bar()
PROBLEMS = ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs")


def load_whole(source: str | Path, what: str, **options: Any) -> PreTrainedModel:
    """A causal LM from a folder or the hub, from safetensors and without remote code.

    transformers fills tensors that a checkpoint lacks with random numbers and goes on; here
    missing, extra and mismatched tensors are UserErrors that begin with `what` and name one of
    them. With device_map="meta" names and shapes alone are read and compared. A head with values of
    its own stays one, whatever the configuration says (`lib.models.tied`). Other errors, of many
    kinds, are the libraries' own."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, each by its name
            **options,
        )
    finally:
        logging.set_verbosity(level)
    for problem in PROBLEMS:
        found = sorted(
            key[0] if isinstance(key, tuple) else str(key) for key in info.get(problem) or []
        )
        if found:
            raise UserError(
                f"{what}: {problem.replace('_', ' ')} in the checkpoint ({len(found)}), "
                f"e.g. {found[0]}"
            )
    tied.keep_apart(model)
    return model
