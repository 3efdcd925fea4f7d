"""What a study needs of its device's memory, estimated from the model's shape; what would fit."""

import math

import torch

from lib.book.machine import host_memory
from lib.errors import UserError
from lib.healing import recipe as recipes
from lib.models import checkpoints
from lib.models.four_bit import runs_in_4bit
from lib.models.shapes import Shape
from lib.schema import Study


def memory(study: Study, shape: Shape, micro_batch: int | None = None) -> dict[str, float]:
    """Bytes at most, estimated: weights to measure unhealed prunings and, where something is
    healed, to heal and to measure what was healed; activations of healing by the usual count of 34
    bytes per token, layer and unit of width in 16 bits. micro_batch: in place of the study's."""
    healing, width = study.healing, shape.config.get_text_config().hidden_size
    size = torch.empty(0, dtype=checkpoints.dtype(study)).element_size()
    if healing is None:
        return {"unhealed": size * shape.total}
    rows = micro_batch or healing.micro_batch or healing.batch
    # With checkpointing each layer keeps what entered it, and one at a time all the rest.
    each = 2 if healing.gradient_checkpointing else 34
    recipe = recipes.of(healing)
    reached = recipe.backward(healing, (), shape.n_layers).layers  # below, nothing is kept
    activations = rows * healing.length * (reached * each + 34) * width * size / 2
    trained, evaluated = recipe.bytes(shape, healing, checkpoints.dtype(study), runs_in_4bit(study))
    return {
        "unhealed": size * shape.total,
        "healing": trained + activations,
        "healed": evaluated,
    }


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
        f"({'healing' if short == 'healing' else f'the {short} model'}), "
        f"{checkpoints.device(study)} has {room / 1e9:.1f} GB; "
    )
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
