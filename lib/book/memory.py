"""What a study needs of its device's memory, estimated from the model's shape; what would fit."""

import math
from dataclasses import replace

import torch

from lib.book.machine import host_memory
from lib.errors import UserError
from lib.healing import recipe as recipes
from lib.models import checkpoints
from lib.models.four_bit import runs_in_4bit
from lib.models.shapes import Shape
from lib.open_sets import Healing
from lib.pruning.strategy import load
from lib.schema import Study

LAYERS = "what_layers_do.gradients"
NEEDED_BY = {"healing": "healing", "gradients": "gradients of all layers"}


def memory(study: Study, shape: Shape, micro_batch: int | None = None) -> dict[str, float]:
    """Bytes at most, estimated: weights to measure unhealed prunings; where a strategy wants
    gradients, those in float32 beside them; and, where something is healed, to heal and to measure
    what was healed, by the recipe that takes most. micro_batch: in place of the study's."""
    size = torch.empty(0, dtype=checkpoints.dtype(study)).element_size()
    found = {"unhealed": float(size * shape.total)}
    if wanted := _gradients_for(study):
        texts = [study.calibration or study.distances] if wanted[0] != LAYERS else []
        texts += [study.distances] if wanted[-1] == LAYERS else []
        length = max(text.length for text in texts)
        kept = _activations(shape, study.batch * length, shape.n_layers, size)
        found["gradients"] = found["unhealed"] + 4 * sum(shape.by_layer) + kept
    if study.healing is None:
        return found
    each = [_healing(study, shape, one, micro_batch) for one in study.every_recipe]
    return found | {what: max(one[what] for one in each) for what in ("healing", "healed")}


def _gradients_for(study: Study) -> list[str]:
    """What wants gradients of all layers: names of strategies, then `LAYERS`."""
    found = [one.name for one in study.every_strategy if load(one).gradients]
    return [*found, LAYERS] if study.what_layers_do.gradients else found


def _healing(
    study: Study, shape: Shape, healing: Healing, micro_batch: int | None
) -> dict[str, float]:
    recipe, shape = recipes.of(healing), replace(shape, targets=healing.adapted)
    dtype = checkpoints.dtype(study)
    rows = micro_batch or healing.micro_batch or healing.batch
    reached = recipe.backward(healing, (), shape.n_layers).layers  # below, nothing is kept
    size = torch.empty(0, dtype=dtype).element_size()
    tokens, lean = rows * healing.length, healing.gradient_checkpointing
    trained, evaluated = recipe.bytes(shape, healing, dtype, runs_in_4bit(study))
    # Where nothing stays frozen, the unpruned model is a copy of its own.
    apart = size * shape.total if healing.distillation and not healing.TEACHABLE else 0.0
    return {
        "healing": trained + apart + _activations(shape, tokens, reached, size, lean),
        "healed": evaluated,
    }


def _activations(
    shape: Shape, tokens: int, layers: int, size: int, checkpointed: bool = False
) -> float:
    """What a pass keeps for the way back, by the usual count of 34 bytes per token, layer and unit
    of width in 16 bits. With checkpointing each layer keeps what entered it, and one at a time all
    the rest."""
    width = shape.config.get_text_config().hidden_size
    return tokens * (layers * (2 if checkpointed else 34) + 34) * width * size / 2


def machine_memory(study: Study) -> int:
    """Bytes that the study's device has: a GPU's, or the machine's within its container."""
    if checkpoints.device(study).type == "cuda":
        return torch.cuda.mem_get_info()[1]
    return host_memory()


def check_dequantised(study: Study) -> None:
    """Raises UserError where a GGUF file's model, which is small in its file, has no room here."""
    if (file := checkpoints.gguf_file(study)) is None:
        return
    from lib.models import gguf_files

    numbers, room = gguf_files.numbers(file), machine_memory(study)
    kind = checkpoints.dtype(study)
    size = numbers * kind.itemsize
    if size > room:
        half = "; dtype: bfloat16 takes half" if kind == torch.float32 else ""
        raise UserError(
            f"model {study.model}: dequantised, its {numbers:,} numbers take {size / 1e9:.1f} GB "
            f"in {str(kind).removeprefix('torch.')}; {checkpoints.device(study)} has "
            f"{room / 1e9:.1f} GB{half}"
        )


def check_memory(study: Study, shape: Shape) -> None:
    """Raises UserError, with what would fit, where the device has less memory than is needed."""
    room, needs = machine_memory(study), memory(study, shape)
    short = next((what for what, size in needs.items() if size > room), None)
    if short is None:
        return
    line = (
        f"study {study.name}: needs about {needs[short] / 1e9:.1f} GB "
        f"({NEEDED_BY.get(short, f'the {short} model')}), "
        f"{checkpoints.device(study)} has {room / 1e9:.1f} GB; "
    )
    if short == "gradients":
        wanted = ", ".join(_gradients_for(study))
        raise UserError(f"{line}a smaller batch, or without {wanted}")
    if short == "healing":
        checkpointed = study.model_copy(
            update={"healing": study.healing.model_copy(update={"gradient_checkpointing": True})}
        )
        parts = [n for n in range(study.healing.batch, 0, -1) if study.healing.batch % n == 0]
        for one, also in ((study, ""), (checkpointed, " with gradient_checkpointing: true")):
            for part in parts:
                if memory(one, shape, part)["healing"] <= room:
                    raise UserError(f"{line}healing.micro_batch: {part}{also} would fit")
    if (
        short == "unhealed"
        and checkpoints.dtype(study) == torch.float32
        and needs[short] / 2 <= room
    ):
        raise UserError(f"{line}dtype: bfloat16 would fit")
    each = max(shape.by_layer) * needs[short] / shape.total
    kept = max(0, math.floor((room - needs[short] + each * shape.n_layers) / each))
    hint = f"a checkpoint with {kept} of its {shape.n_layers} layers would" if kept else "nothing"
    raise UserError(f"{line}{hint} fit (python -m lib.pruning makes one)")
