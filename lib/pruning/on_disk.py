"""Pruning a checkpoint on disk without loading it: bytes of the kept layers are copied, and no
tensor is ever made (§5 of Gromov et al.: the simple heuristic needs no model in memory).

    python -m lib.pruning CHECKPOINT OUT --drop 21:29                  # layers 21–28; or 3,5:8
    python -m lib.pruning CHECKPOINT OUT --simple 8                    # deepest 8, last one kept
    python -m lib.pruning CHECKPOINT OUT --study mine.yaml --similarity 8   # as the study measured
    python -m lib.pruning CHECKPOINT OUT --study mine.yaml --strategy NAME 8   # by any strategy

CHECKPOINT is a folder, or a model of the hub that is in the cache here. OUT loads like any other
checkpoint. It appears whole or not at all, whenever this is interrupted: everything is written to
a hidden folder beside it, which then gets its name.
"""

import argparse
import copy
import csv
import json
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lib import open_sets, paths
from lib import study as studies
from lib.errors import UserError
from lib.evidence import ownership
from lib.files import check_space, free_place, whole_or_not_at_all
from lib.models import beforehand, shards
from lib.pruning.card import card
from lib.pruning.dropped import Dropped, check_n, in_words, kept_layers, parse_layers
from lib.pruning.strategy import shipped

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Weights in any format, and what is written anew. All other files of a checkpoint are copied.
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot"}
REWRITTEN = {"config.json", "README.md"}
SLACK = 32 << 20  # bytes beside the weights: tokenizer, headers


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.pruning", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("checkpoint", help="a folder with safetensors, or a cached hub model")
    parser.add_argument("out", help="the folder to write; it must not exist or be empty")
    add_choices(parser)
    parser.add_argument("--study", help="whose chosen_layers.csv says what a strategy chose")
    options = parser.parse_args(arguments)
    try:
        choose = _choice(options)
        _check_gguf(paths.from_home(options.checkpoint), choose)
        folder = find(options.checkpoint)
        out = free_place(Path(options.out), folder)
        shards.read(folder)  # cheap: before anything long
        check_config(folder)
        n_layers = _text_config(load_config(folder)).num_hidden_layers
        dropped = choose(n_layers)
        is_local = paths.from_home(options.checkpoint).exists()
        prune(folder, out, dropped, None if is_local else options.checkpoint)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or options.out
        print(f"error: {where}: {error.strerror}; nothing has been written", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing has been written", file=sys.stderr)
        return 130
    print(f"{out}: {in_words(dropped, n_layers)}")
    return 0


def _choice(options: argparse.Namespace) -> Callable[[int], Collection[int]]:
    """Which layers go, of how many there are. Raises UserError for what is asked wrongly."""
    if options.drop is not None:
        return lambda n_layers: parse_layers(options.drop, n_layers)
    strategy, n = asked_strategy(options)
    if by_rule(strategy, options.study):
        return lambda n_layers: shipped(strategy).expected(n, n_layers)
    return lambda n_layers: chosen(options.study, strategy, n, n_layers)


def _check_gguf(file: Path, choose: Callable[[int], Collection[int]]) -> None:
    """Raises UserError for a GGUF file, with what prunes it in place of this."""
    if file.suffix != ".gguf" or not file.is_file():
        return
    from lib.models import gguf_files  # imports torch

    n_layers = gguf_files.n_layers(file)
    numbers = ",".join(map(str, sorted(choose(n_layers))))
    raise UserError(
        f"checkpoint {file}: a GGUF file of {n_layers} layers is pruned by llama.cpp: "
        f"`llama-quantize --prune-layers {numbers} {file.name} pruned.gguf COPY`"
    )


def prune(folder: Path, out: Path, dropped: Collection[int], hub_name: str | None = None) -> None:
    """Write the checkpoint in `folder` without some layers to `out`, as `surgery.save_pruned` would
    after loading it: weights bit for bit, config with every per-layer list sliced; and a card.
    What predicts further tokens behind the last layer is left out there, too.

    Holds a few MB of it in memory. Raises UserError for a checkpoint that is not whole or not
    understood, for layers it does not have, and when `out` is not empty or its disk too small."""
    # These import torch: after the cheap checks of the command.
    from lib.models import tied
    from lib.pruning.surgery import slice_config

    out = free_place(out, folder)
    config = load_config(folder)
    n_layers = _text_config(config).num_hidden_layers
    dropped = Dropped(dropped).check(n_layers)
    kept = kept_layers(dropped, n_layers)
    whole = shards.read(folder)
    extra = shards.multi_token(whole, n_layers, _ignored(config))
    stack = shards.layer_stack(shards.without(whole, extra), n_layers)
    if getattr(config, "quantization_config", None):
        layers = stack.rpartition(".")[2]
        config.quantization_config = renumber(config.quantization_config, layers, kept)
        check_modules(folder, whole, stack, config)
    else:
        check_tensors(folder, config)
    if tied.own_head(config, whole):
        tied.untie(config)
    names = shards.renamed(shards.without(whole, extra), stack, kept)
    slice_config(config, kept)
    if extra:
        print(
            f"note: left out are {len(extra)} tensors of multi-token prediction, which "
            f"transformers does not load, e.g. {extra[0]}",
            file=sys.stderr,
        )
    size = shards.kept_bytes(whole, names)
    check_space(out, size + SLACK)
    with (
        whole_or_not_at_all(out) as unfinished,
        tqdm(total=size, unit="B", unit_scale=True, desc=out.name, disable=None) as bar,
    ):
        shards.write(whole, names, unfinished, bar.update)
        for path in _side_files(folder):
            (unfinished / path).parent.mkdir(exist_ok=True)
            shards.copy_file(folder / path, unfinished / path)
        readme = card(folder, hub_name, out.name, dropped, n_layers)
        shards.write_file(unfinished / "README.md", readme)
        shards.write_file(unfinished / "config.json", config.to_json_string())


def find(name: str) -> Path:
    """The folder of a checkpoint, given by path or as the name of a cached model of the hub."""
    folder = paths.from_home(name)
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise UserError(f"checkpoint {name}: a file; give the folder that it is in")
    if re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", name):
        from lib.models.hub import cached_snapshot

        if cached := cached_snapshot(name):
            return cached
        raise UserError(
            f"checkpoint {name}: neither a folder nor a model in the hub's cache here; "
            f"`hf download {name}` fetches one"
        )
    raise UserError(f"checkpoint {name}: there is no such folder")


def load_config(folder: Path) -> "PretrainedConfig":
    """The checkpoint's config with everything that transformers derives from it: which layers
    attend to a window, say, is often not written down but follows from their number."""
    if not (folder / "config.json").is_file():
        raise UserError(f"checkpoint {folder}: no config.json there")
    from transformers import AutoConfig  # imports torch

    beforehand.look(folder)
    try:
        if json.loads((folder / "config.json").read_bytes())["model_type"] == "qwen":
            from lib.models import qwen

            qwen.register()
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a damaged file leads to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"checkpoint {folder}: config.json: {reason}") from None


def check_config(folder: Path) -> None:
    """A model can be made of the checkpoint's configuration, soon and in little memory.

    Raises UserError otherwise."""
    from lib.models.anatomy import skeleton  # imports torch
    from lib.models.trial import trial

    def make() -> None:
        config = load_config(folder)
        _text_config(config)
        beforehand.check_size(folder, skeleton(config).num_parameters())

    trial(f"checkpoint {folder}", make)


def check_tensors(folder: Path, config: "PretrainedConfig") -> None:
    """Every tensor of the model is in the checkpoint in its shape, and no other: found out by
    loading names and shapes alone.

    Raises UserError otherwise, naming one."""
    from lib.models.loading import load_whole

    try:
        load_whole(
            folder,
            f"checkpoint {folder}",
            config=copy.deepcopy(config),
            device_map="meta",
            local_files_only=True,
        )
    except UserError:
        raise
    except Exception as error:  # tensors that do not go together surface as many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {folder}: not loadable as a causal LM: {reason}") from None


def check_modules(
    folder: Path, whole: list[shards.Shard], stack: str, config: "PretrainedConfig"
) -> None:
    """What `check_tensors` cannot do for a checkpoint that is quantised, whose tensors are not
    those of its configuration: every module of a layer that some layer has tensors of, all have.

    Raises UserError otherwise, naming one."""
    from lib.models import anatomy

    names = [tensor.name for shard in whole for tensor in shard.tensors]
    model = anatomy.skeleton(config)
    found: dict[str, dict[int, bool]] = {}
    for i, layer in enumerate(anatomy.layers(model)):
        here = f"{stack}.{i}."
        own = [name.removeprefix(here) for name in names if name.startswith(here)]
        for module in {name.rpartition(".")[0] for name, _ in layer.named_parameters()}:
            there = any(name.startswith(f"{module}.") for name in own)
            found.setdefault(module, {})[i] = there
    for module, by_layer in found.items():
        if any(by_layer.values()) and not all(by_layer.values()):
            i = next(i for i, there in by_layer.items() if not there)
            raise UserError(f"checkpoint {folder}: no tensor of {stack}.{i}.{module}")


def _ignored(config: "PretrainedConfig") -> list[str]:
    """Patterns of names that transformers passes over when it loads this model."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM._model_mapping.get(type(config), None)
    return getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The options that say which layers go."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--drop", metavar="LAYERS", help="counted from 0, half-open: 21:29 or 3,5:8")
    which.add_argument("--simple", type=int, metavar="N", help="the deepest N, the last one kept")
    which.add_argument("--similarity", type=int, metavar="N", help="the most similar block of N")
    which.add_argument("--strategy", nargs=2, metavar=("NAME", "N"), help="N by any strategy")


def asked_strategy(options: argparse.Namespace) -> tuple[str, int]:
    """The strategy and the number of layers that the options say.

    Raises UserError for a number that is none."""
    for name in ("simple", "similarity"):
        if getattr(options, name) is not None:
            return name, getattr(options, name)
    name, n = options.strategy
    if not re.fullmatch(r"\d{1,9}", n):
        raise UserError(f"--strategy {name} {n}: '{n}' is not a number of layers")
    return name, int(n)


def by_rule(strategy: str, study: str | None) -> bool:
    """Whether the number of layers alone says what a strategy drops: of one that is shipped, by a
    rule without settings.

    Raises UserError for another one where no study is given that has looked at the model."""
    if study is not None and strategy not in open_sets.known("strategy"):
        return False
    found = shipped(strategy)
    if found.by_rule and not type(found.settings).model_fields:
        return True
    if study is None:
        raise UserError(
            f"strategy {strategy}: goes with --study X: what X measured says which layers"
        )
    return False


def chosen(study: str, strategy: str, n: int, n_layers: int) -> Dropped:
    """The n layers that a strategy chose in a study: its own `chosen_layers.csv`.

    Raises UserError when the study has not been run, or on a model of another depth."""
    check_n(n, n_layers)
    owner = studies.load(study)
    name = owner.name
    path = paths.tables(name) / "chosen_layers.csv"
    if not path.is_file():
        raise UserError(
            f"study {name}: {path} is not there; `.venv/bin/python -m lib.run "
            f"angular_distances --study {study}` makes it"
        )
    ownership.check(owner, _checkpoint(owner))
    rows = _choices(name, path)
    depth = max(n for _, n, _ in rows) + 1
    further = path.with_name("choices_made.csv")  # of strategies beside the study's own
    rows += _choices(name, further) if further.is_file() else []
    there = list(dict.fromkeys(one for one, _, _ in rows))
    if strategy not in there:
        raise UserError(
            f"study {name}: compares no strategy '{strategy}'; it has {', '.join(there)}"
        )
    if depth != n_layers:
        raise UserError(
            f"study {name}: measured on a model of {depth} layers; this one has {n_layers}"
        )
    found = next((layers for one, m, layers in rows if (one, m) == (strategy, n)), None)
    if found is None or found.n != n:
        raise UserError(f"study {name}: {path} has no choice of {n} layers by {strategy}")
    return found.check(n_layers)


def _choices(study: str, path: Path) -> list[tuple[str, int, Dropped]]:
    """Strategy, n and layers of a table, without draws by chance."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [
                (row["strategy"], int(row["n"]), Dropped(map(int, row["dropped"].split())))
                for row in csv.DictReader(file)
                if not row.get("draw")
            ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"study {study}: {path} is damaged") from None


def _checkpoint(study: studies.Study) -> str | None:
    """The digest of the study's own checkpoint, if that is still at hand."""
    from lib.models.checkpoints import checkpoint_digest  # imports torch

    try:
        return checkpoint_digest(study)
    except (OSError, UserError):
        return None


def renumber(value: Any, layers: str, kept: list[int]) -> Any:
    """Settings of a quantisation with the modules that they name ("model.layers.9.mlp.gate") by
    their new numbers; those of dropped layers are left out. `layers` is what stands before the
    number.

    Raises UserError for a pattern with numbers in it."""
    if isinstance(value, dict):
        pairs = [(renumber(k, layers, kept), renumber(v, layers, kept)) for k, v in value.items()]
        return {k: v for k, v in pairs if k is not None}
    if isinstance(value, list):
        # None stands in no such list.
        return [new for new in (renumber(v, layers, kept) for v in value) if new is not None]
    if not isinstance(value, str) or any(word in value for word in shards.OTHER_TOWERS):
        return value
    if ("\\" in value or value.startswith("re:")) and re.search(r"\d", value):
        raise UserError(
            f"quantization_config: the pattern '{value}' names layers by number; "
            "it cannot be carried over"
        )
    found = re.search(rf"(?<![^.]){re.escape(layers)}\.(\d+)(?![^.])", value)
    if not found:
        return value
    if int(found[1]) not in kept:
        return None
    return f"{value[: found.start(1)]}{kept.index(int(found[1]))}{value[found.end(1) :]}"


def _text_config(config: "PretrainedConfig") -> "PretrainedConfig":
    text = config.get_text_config()
    if not isinstance(getattr(text, "num_hidden_layers", None), int):
        raise UserError(f"'{config.model_type}' is not a model of decoder layers")
    return text


def _side_files(folder: Path) -> list[Path]:
    """Tokenizer, generation config, licence and the like, relative to the checkpoint."""
    found = [*folder.iterdir(), *(folder / "additional_chat_templates").glob("*")]
    return [
        path.relative_to(folder)
        for path in sorted(found)
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix not in WEIGHTS
        and path.name not in REWRITTEN
        and not path.name.endswith(".index.json")
    ]
