"""Healing against a bare Trainer + peft loop on the same rows, and packed rows against padded ones,
alternately in one run over real text.

    .venv/bin/python benchmarks/healing.py --text FILE.jsonl [--width 512 --layers 4 --length 1024]
    .venv/bin/python benchmarks/healing.py --text FILE.jsonl --model CHECKPOINT --length 128

Padded rows hold one document each; useful tokens are those that are not padding. How many are
depends on the tokenizer: the embedded one has 1,024 tokens and makes long rows of English;
--vocabulary trains one of that size on the text itself, with which rows are as long as with a
model's own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from side_by_side import alternate, ratio, seconds, subject, text_of
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Trainer,
    TrainingArguments,
)

from almanac.tokenizer import train_tokenizer
from lib.fields import Text
from lib.healing import adapters, training
from lib.healing.reading import Read
from lib.models import checkpoints, four_bit
from lib.models.corpora import document_sequences, documents, windows
from lib.open_sets import Adapters, healing
from lib.schema import Study

FFN = ["gate_proj", "up_proj", "down_proj"]


def bare(checkpoint: str, rows: list[torch.Tensor], recipe: Adapters) -> float:
    """What anyone would write: the base, in 4-bit for QLoRA, LoRA on the FFN, the Trainer. Returns
    the seconds of training, loading left out."""
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    how = {"quantization_config": quantised} if recipe.recipe == "qlora" else {}
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, **how)
    if how:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank,
        lora_dropout=recipe.dropout,
        target_modules=FFN,
        task_type="CAUSAL_LM",
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.micro_batch,
            gradient_accumulation_steps=recipe.batch // recipe.micro_batch,
            learning_rate=recipe.learning_rate,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        data = [{"input_ids": row.long(), "labels": row.long()} for row in rows]
        adapted = get_peft_model(model, lora)
        return seconds(lambda: Trainer(adapted, arguments, train_dataset=data).train())


def peak(which: str) -> float:
    """MiB of a process that trains once."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory", which]
    found = subprocess.run(command, capture_output=True, check=True).stdout
    return int(found.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--model", help="a folder or a GGUF file, in place of a random Llama")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--recipe", choices=["qlora", "lora"], default="qlora")
    parser.add_argument("--memory", choices=["ours", "bare"], help=argparse.SUPPRESS)
    parser.add_argument("--vocabulary", type=int, help="of a tokenizer trained on the text")
    args = parser.parse_args()
    source, text = Text(path=str(args.text.resolve())), text_of(args.model)
    if args.vocabulary:
        text = train_tokenizer(documents(source, None), args.vocabulary, args.length)
    sizes = {"steps": args.steps, "batch": 4, "micro_batch": 4, "length": args.length}
    recipe = healing(recipe=args.recipe, rank=8, **sizes)
    count = recipe.steps * recipe.batch
    packed = list(windows(source, text, count, args.length, 0).int())
    rows = document_sequences(source, text, count, args.length, 0)
    padded = [torch.tensor(row, dtype=torch.int32) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        model = subject(args.model, args.layers, args.width, args.length, len(text))
        model.save_pretrained(folder)
        text.save_pretrained(folder)
        study = Study(model=folder, device="cpu")

        def ours(rows: list[torch.Tensor]) -> float:
            in_4bit = args.recipe == "qlora"
            base = four_bit.load_4bit(study) if in_4bit else checkpoints.load_model(study)
            model = adapters.adapt(base, recipe, needs_4bit=in_4bit)
            pad = text.pad_token_id
            return seconds(lambda: training.train(model, Read(rows), pad, recipe, torch.float32))

        if args.memory:
            if args.memory == "ours":
                ours(packed)
            else:
                bare(folder, packed, recipe)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            return

        in_turn = partial(alternate, args.pairs, timed=lambda work: work())
        own, theirs = in_turn(lambda: ours(packed), lambda: bare(folder, packed, recipe))
        print(f"tokens per second, healing over a bare Trainer: {ratio(theirs, own)}", flush=True)
        print(f"peak memory {peak('ours'):,.0f} MiB, bare {peak('bare'):,.0f}", flush=True)
        full, part = in_turn(lambda: ours(packed), lambda: ours(padded))
    useful = [sum(map(len, rows)) for rows in (packed, padded)]
    paces = [
        [tokens / t for t in times] for tokens, times in zip(useful, (full, part), strict=True)
    ]
    print(
        f"{count} rows of at most {args.length} tokens, {useful[1] / useful[0]:.0%} filled when "
        f"padded; useful tokens per second, packed over padded: {ratio(*paces)}"
    )


if __name__ == "__main__":
    main()
