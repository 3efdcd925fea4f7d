"""Which files of a checkpoint's folder decide what is loaded from it.

Importing this module is cheap (no torch).
"""

import re
from pathlib import Path

from lib.errors import UserError
from lib.models.shards import INDEX, weight_files

# What transformers reads beside the weights: settings, and vocabularies by the names that its
# tokenizers know.
SETTINGS = {"config.json", "generation_config.json", INDEX}
SETTINGS |= {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
SETTINGS |= {"added_tokens.json", "chat_template.json"}
SETTINGS |= {"vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "dict.txt", "emoji.json"}
SETTINGS |= {"entity_vocab.json", "word_shape.json", "word_pronunciation.json", "byte_maps.json"}
SETTINGS |= {"vocab-src.json", "vocab-tgt.json", "target_vocab.json", "normalizer.json"}
SETTINGS |= {"tekken.json", "prophetnet.tokenizer"}
SUFFIXES = {".model", ".tiktoken", ".spm", ".jinja"}  # under any name
VERSIONED = re.compile(r"tokenizer\.\S+\.json")  # for some versions of transformers


def made_of(folder: Path) -> list[Path]:
    """Weights, configuration and tokenizer. Notes, licences and what a trainer leaves beside them
    are passed over.

    Raises UserError where there is no checkpoint, and as `weight_files` does."""
    if not (folder / "config.json").is_file():
        raise UserError(f"model {folder}: no checkpoint there (no config.json)")
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.name in SETTINGS or path.suffix in SUFFIXES or VERSIONED.fullmatch(path.name)
    ]
    return [*weight_files(folder), *filter(Path.is_file, found)]
