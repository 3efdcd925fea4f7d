"""Loading causal language models: checkpoints are checked before they are believed."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.quantizers.auto import AutoQuantizationConfig

from lib.errors import UserError
from lib.evidence.records import digest, file_digest
from lib.models import beforehand, shards, tied
from lib.models.anatomy import layers, skeleton
from lib.models.checkpoint_files import made_of
from lib.models.hub import cached_snapshot, chain, explain
from lib.models.loading import load_whole
from lib.models.trial import trial
from lib.schema import Study

# For trying a tokenizer: runs of each kind of character, at which badly made patterns explode.
SAMPLE = " ".join(f"{one * 60}!" for one in "aA1 _-.,\n'é中") + " It was 3 o'clock. " * 20
GGUF = ".gguf"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device(study: Study) -> torch.device:
    if study.device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"study {study.name}: device is cuda, but no CUDA device is found here")
    if study.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(study.device)


def dtype(study: Study) -> torch.dtype:
    """Float32 on a CPU; on a GPU bfloat16, unless the study says otherwise."""
    if study.dtype == "auto":
        return torch.bfloat16 if device(study).type == "cuda" else torch.float32
    return DTYPES[study.dtype]


def gguf_file(study: Study) -> Path | None:
    """The GGUF file that the study's model is, if it is one; one of the hub's is fetched.

    Raises UserError where the hub has none of its name."""
    if study.gguf is None:
        return Path(study.model) if study.model.endswith(GGUF) else None
    try:
        return Path(hf_hub_download(study.model, study.gguf, revision=commit(study)))
    except UserError:
        raise
    except Exception as error:  # no network, no such file, …
        raise _loading_error(study, error, what=f"file {study.gguf} of model") from None


def at_hand(study: Study) -> Path | None:
    """The folder that the model is read from, of a GGUF file the one that it is made into; None for
    a checkpoint of the hub, which the libraries fetch.

    Raises UserError as `gguf_files.made` does."""
    if (file := gguf_file(study)) is not None:
        from lib.models import gguf_files  # imports much that is needed for nothing else

        return gguf_files.made(file)
    return Path(study.model) if study.model_is_local else None


def _place(study: Study) -> tuple[str, str | None]:
    """Where libraries find the model: a folder, or a name and a commit of the hub's."""
    folder = at_hand(study)
    return (study.model, commit(study)) if folder is None else (str(folder), None)


def load_config(study: Study) -> PretrainedConfig:
    """The model's config, if it is a causal language model's.

    Raises UserError: no such folder or repository, files that cannot be what they are named, not a
    causal LM, remote code needed."""
    folder = at_hand(study)
    if folder is not None and not (folder / "config.json").is_file():
        raise UserError(f"model {study.model}: no checkpoint there (no config.json)")
    source, revision = _place(study)
    try:
        if folder is None:
            folder = Path(hf_hub_download(source, "config.json", revision=revision)).parent
        beforehand.look(folder)
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # values of wrong types surface as many kinds
        raise _loading_error(study, error) from None
    known = AutoModelForCausalLM._model_mapping
    if type(config) not in known:
        raise UserError(
            f"model {study.model}: '{config.model_type}' is not a causal language model "
            "that transformers knows without remote code"
        )
    # BERT, say, can be loaded as a causal language model, but was not trained as one.
    meant = config.architectures or [known[type(config)].__name__]
    if known[type(config)].__name__.lower() not in map(str.lower, meant):
        raise UserError(
            f"model {study.model}: '{config.model_type}' as {', '.join(meant)} is not a causal "
            "language model"
        )
    check_shape(study, config)
    return config


def check_shape(study: Study, config: PretrainedConfig) -> None:
    """Raises UserError where the checkpoint's own configuration contradicts the study's `shape`."""
    for key, value in (study.shape or {}).items():
        found = getattr(config, key, None)
        if found != value:
            raise UserError(
                f"study {study.name}: shape.{key} is {value!r}, but {study.model} has {found!r}"
            )


def config_of_shape(study: Study) -> PretrainedConfig:
    """A configuration made of the study's `shape`, for planning without the checkpoint.

    Raises UserError for a shape that is none."""
    shape = dict(study.shape or {})
    beforehand.check_layers(f"study {study.name}: shape", shape)
    try:
        return AutoConfig.for_model(shape.pop("model_type"), **shape)
    except Exception as error:  # an unknown type, values that do not go together
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"study {study.name}: shape: {reason}") from None


def load_model(
    study: Study, four_bit: bool = False, weights: torch.dtype | None = None
) -> PreTrainedModel:
    """The unpruned model in eval mode, in `weights` or else `dtype(study)`; `four_bit`: linear
    layers in NF4.

    Raises UserError when its tensors are not those of its configuration."""
    config = load_config(study)
    check_files(study)
    options: dict[str, Any] = {}
    if four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype(study)
        )
    place = {"": device(study)}
    model = _load(study, config, dtype=weights or dtype(study), device_map=place, **options)
    layers(model)
    return model.eval()


def _load(study: Study, config: PretrainedConfig, **options: Any) -> PreTrainedModel:
    try:
        source, revision = _place(study)
        return load_whole(
            source, f"model {study.model}", revision=revision, config=config, **options
        )
    except UserError:
        raise
    except Exception as error:  # damaged files surface as many kinds
        raise _loading_error(study, error) from None


def load_tokenizer(study: Study, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer, with a padding token that has an embedding (the end of text,
    if it has none).

    Raises UserError when there is none."""
    try:
        source, revision = _place(study)
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=False
        )
    except Exception as error:
        raise _loading_error(study, error, what="tokenizer") from None
    if not tokenizer.get_vocab():
        raise UserError(f"model {study.model}: its tokenizer is empty or missing")
    count = config.get_text_config().vocab_size
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= count:
        end = tokenizer.eos_token_id
        usable = end is not None and end < count
        tokenizer.pad_token = tokenizer.eos_token if usable else tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write it as the checkpoint has it: where no token has a role, an ordinary one was taken for
    padding, and whoever loads it as such leaves it out of texts."""
    padding = tokenizer.pad_token
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    if tokenizer.eos_token is None and padding not in special:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    tokenizer.pad_token = padding


def untrained_twin(study: Study) -> PreTrainedModel:
    """A model of the same configuration whose weights are transformers' own random start."""
    torch.manual_seed(study.controls.seed)
    with torch.device(device(study)):
        twin = AutoModelForCausalLM.from_config(
            load_config(study), dtype=dtype(study), trust_remote_code=False
        )
    return twin.eval()


def check_file(study: Study) -> None:
    """A GGUF file can be read, soon and in little memory.

    Raises UserError otherwise."""
    if (file := gguf_file(study)) is not None:
        from lib.models import gguf_files

        trial(f"model {study.model}", lambda: gguf_files.look(file))


def check_config(study: Study) -> None:
    """A model can be made of the checkpoint's configuration, soon and in little memory.

    Raises UserError otherwise."""

    def make() -> None:
        config = load_config(study)
        try:
            model = skeleton(config)
            layers(model)
        except UserError:
            raise
        except Exception as error:  # constructors raise many kinds
            raise _loading_error(study, error) from None
        if (folder := at_hand(study)) is not None:
            beforehand.check_size(folder, model.num_parameters())

    _try(study, make)


def check_tokenizer(study: Study) -> None:
    """The checkpoint's tokenizer can be loaded and encodes a text, soon and in little memory.

    Raises UserError otherwise."""

    def encode() -> None:
        tokenizer = load_tokenizer(study, load_config(study))
        try:
            tokenizer(SAMPLE, verbose=False)
        except Exception as error:
            raise _loading_error(study, error, what="tokenizer") from None

    _try(study, encode)


def _try(study: Study, step: Callable[[], object]) -> None:
    """With limits where the files are at hand: a download may take as long as it does."""
    trial(f"model {study.model}", step) if at_hand(study) is not None else step()


def check_files(study: Study) -> None:
    """Every safetensors file of a local checkpoint is there, whole, and as its index says.

    Raises UserError otherwise; pickled weights are refused, since loading them would run code."""
    if (folder := at_hand(study)) is not None:
        shards.read(folder)


def check_tensors(study: Study) -> None:
    """A local checkpoint's tensors are those of its configuration, by name and shape.

    Raises UserError otherwise."""
    if at_hand(study) is None:
        return
    check_files(study)
    config = load_config(study)
    # One that was quantised before has other tensors than its configuration alone says.
    if not hasattr(config, "quantization_config"):
        _load(study, config, device_map="meta")
        return
    try:
        AutoQuantizationConfig.from_dict(config.quantization_config)
    except Exception as error:  # of a kind that is not known here
        raise _loading_error(study, error) from None


def contradiction(study: Study) -> str | None:
    """A line where the configuration of a local checkpoint says that its output head is the
    embeddings, and its tensors say that it is not; None where they agree."""
    if (folder := at_hand(study)) is None:
        return None
    head = tied.own_head(load_config(study), shards.read(folder))
    return head and (
        f"config.json says tie_word_embeddings: true, but {head} has values "
        "of its own; these are used, and written with tie_word_embeddings: false"
    )


def checkpoint_digest(study: Study) -> str:
    """Identifies weights, config and tokenizer: file hashes, or the hub's commit."""
    if (file := gguf_file(study)) is not None:
        from lib.models import gguf_files

        return gguf_files.identity(file)
    if not study.model_is_local:
        return digest([study.model, commit(study)])
    files = made_of(Path(study.model))
    return digest({path.name: file_digest(path) for path in files})


def commit(study: Study) -> str | None:
    """The hub's commit that the study's revision names now, or, without a network, that of the
    cached copy; None for a local folder. Loading by commit needs no network once it is cached."""
    if study.model_is_local:
        return None
    try:
        return _hub_commit(study.model, study.revision)
    except Exception as error:  # no network, no such repository, …
        if found := cached_snapshot(study.model, study.revision):
            return found.name
        raise UserError(
            f"model {study.model}: not a local folder, and {explain(error, 'model', study.model)}; "
            "paths start with ./, ../, ~ or /"
        ) from None


@cache
def _hub_commit(model: str, revision: str | None) -> str:
    return HfApi().model_info(model, revision=revision, timeout=10).sha


def _loading_error(study: Study, error: Exception, what: str = "model") -> UserError:
    """One line for whatever the library raised while it loaded a part of the checkpoint."""
    if not study.model_is_local and any(isinstance(one, HfHubHTTPError) for one in chain(error)):
        return UserError(f"{what} {study.model}: {explain(error, 'model', study.model)}")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{what} {study.model}: cannot be loaded: {reason}")
