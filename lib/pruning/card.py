"""The model card of a pruned checkpoint: which layers are gone, in words, as half-open ranges, as
a mergekit slice list and as llama.cpp's argument."""

import json
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from lib.pruning.dropped import in_words, kept_layers, ranges

CARRIED = ("license", "license_name", "license_link", "language")  # over from the original's card


def card(
    folder: Path, hub_name: str | None, out: str, dropped: Collection[int], n_layers: int
) -> str:
    """The card of the checkpoint `out`, made from the one in `folder`, which may be the hub's
    `hub_name`."""
    name = hub_name or folder.name
    its_path = "" if hub_name else f", with its path for `{name}`"
    register = ""
    if json.loads((folder / "config.json").read_bytes())["model_type"] == "qwen":
        register = "from lib import qwen  # reads version 1 of Qwen\n\nqwen.register()\n"
    kept = kept_layers(dropped, n_layers)
    front: dict[str, Any] = {"base_model": hub_name} if hub_name else {}
    front |= {"library_name": "transformers", "tags": ["layer-pruning"]}
    front |= {key: value for key, value in _front_matter(folder).items() if key in CARRIED}
    sources = [{"model": name, "layer_range": [run.start, run.stop]} for run in ranges(kept)]
    merge = {"slices": [{"sources": [one]} for one in sources], "merge_method": "passthrough"}
    numbers = ",".join(map(str, sorted(dropped)))

    def half_open(layers: Collection[int]) -> str:
        return ", ".join(f"[{run.start}, {run.stop})" for run in ranges(layers))

    return f"""---
{yaml.safe_dump(front, sort_keys=False)}---

# {name}, {len(kept)} of {n_layers} layers

`{name}` with {len(dropped)} of its {n_layers} decoder layers dropped. The weights of the others are
the original's, byte for byte; nothing was trained afterwards.

| | layers of the original, counted from 0 |
|---|---|
| in words | {in_words(dropped, n_layers)} |
| dropped, half-open | {half_open(dropped)} |
| kept, half-open | {half_open(kept)} |

Kept layers have moved up: here they are 0–{len(kept) - 1}.

## Load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

{register}model = AutoModelForCausalLM.from_pretrained("{out}", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("{out}")
```

## The same with other tools

With mergekit, `mergekit-yaml config.yaml OUT`, from the original{its_path}:

```yaml
{yaml.safe_dump(merge, sort_keys=False, default_flow_style=None)}```

With llama.cpp, from a GGUF file of the original:

```bash
llama-quantize --prune-layers {numbers} original-f16.gguf pruned-f16.gguf F16
```
"""


def _front_matter(folder: Path) -> dict[str, Any]:
    """The YAML at the head of the original's card, if it has one that can be read."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        found = re.match(r"---\n(.*?)\n---", (folder / "README.md").read_text("utf-8"), re.DOTALL)
        front = yaml.safe_load(found[1]) if found else None
        return front if isinstance(front, dict) else {}
    return {}
