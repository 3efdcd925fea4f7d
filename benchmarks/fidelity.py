"""Do the accuracies measured here equal those of lm-eval run by itself? On real questions in a
folder, for a checkpoint and prunings of it, without and with examples in the prompt:

    .venv/bin/python benchmarks/fidelity.py --data FOLDER --model CHECKPOINT --drop 2:3 \\
        [--shots 0 5] [--tasks mmlu:20 boolq:200 gsm8k:20 hellaswag:200] [--text FILE.jsonl]

FOLDER is what PRUNING_DATA names (book/offline.md). After a task's name stands how many questions
are asked, in MMLU of each subject. Here, all prunings answer together, as in a run of the book.
lm-eval alone runs in a process of its own on each pruned checkpoint, written to disk before, with
its own Hugging Face model. Each question has to be judged alike, log-likelihoods have to be the
same to 1e-3 nats and written answers letter by letter; accuracies, standard errors and the number
of prompts that were cut to fit have to be equal. With a text, its loss per token is compared as
well, with that of transformers alone, document by document; with `--whole wikitext:4`, perplexity
per word and per byte of so many documents with lm-eval's, to 1e-4 of each.

Prints a table; the exit code is 1 where anything differs. Seconds are of all prunings together
here, and of each by itself in lm-eval, where loading the checkpoint is part of them.
"""

import argparse
import math
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.tasks import TaskManager
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lib import paths
from lib.errors import UserError
from lib.evaluation import evaluate, harness, whole_texts
from lib.fields import Text
from lib.models import checkpoints, corpora
from lib.pruning.dropped import parse_layers
from lib.pruning.on_disk import find, prune
from lib.schema import Perplexity, Study, Task

TASKS = paths.ROOT / "tasks"
DEFAULT = ["mmlu:20", "boolq:200", "gsm8k:20", "hellaswag:200"]
HEADER = [
    *(
        "task",
        "shots",
        "dropped",
        "questions",
        "judged alike",
        "answers apart",
        "accuracy",
        "lm-eval's",
    ),
    *("stderr", "lm-eval's", "prompts cut", "counted", "s, all", "lm-eval's, each"),
]
CLOSE = 1e-3  # nats
Samples = dict[str, list[dict[str, Any]]]


def alone(folder: str, dtype: str, device: str, batch: int, task: Task) -> dict[str, Any]:
    """lm-eval's own numbers for a checkpoint, with nothing of this project but the task files: by
    sub-task the judgements in order, score and standard error; score and standard error of all;
    what was answered; and how many prompts do not fit, counted with the tokenizer."""
    start = time.monotonic()
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": folder, "dtype": dtype},
        tasks=[task.name],
        num_fewshot=task.shots,
        limit=task.limit,
        batch_size=batch,
        device=device,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        verbosity="ERROR",
    )
    seconds = time.monotonic() - start
    tokenizer = AutoTokenizer.from_pretrained(folder)
    room = AutoConfig.from_pretrained(folder).max_position_embeddings
    subtasks, cut = {}, set()
    for name, rows in first_filter(found["samples"]).items():
        filtered, metric = rows[0]["filter"], "acc" if "acc" in rows[0] else "exact_match"
        keys = f"{metric},{filtered}", f"{metric}_stderr,{filtered}"
        judged = "".join(str(int(row[metric])) for row in rows)
        subtasks[name] = (judged, *(found["results"][name][key] for key in keys))
        cut |= {
            prompt
            for row in rows
            for prompt, after in row["arguments"]
            if not fits(tokenizer, room, prompt, after)
        }
    overall = [found["results"][task.name][key] for key in keys]
    answers = given(found["samples"])
    return {
        **{"subtasks": subtasks, "overall": overall, "answers": answers},
        **{"cut": len(cut), "seconds": seconds},
    }


def perplexity_alone(
    folder: str, dtype: str, device: str, batch: int, probe: Perplexity
) -> dict[str, float]:
    """lm-eval's own perplexities per word and per byte."""
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": folder, "dtype": dtype},
        tasks=[probe.name],
        limit=probe.limit,
        batch_size=batch,
        device=device,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        verbosity="ERROR",
    )["results"][probe.name]
    return {unit: found[f"{metric},none"] for unit, metric in whole_texts.METRICS.items()}


def fits(tokenizer: Any, room: int, prompt: str, after: str | dict[str, Any]) -> bool:
    """Whether a prompt and its answer fit into a context. The last token of a given answer is not
    read; for one to be written lm-eval keeps room for 256 tokens where the task does not say."""
    writes = isinstance(after, dict)
    length = len(tokenizer(prompt if writes else prompt + after, verbose=False)["input_ids"])
    return length + (after.get("max_gen_toks", 256) if writes else -1) <= room


def first_filter(samples: Samples) -> Samples:
    """In order of the questions, by the filter that counts."""
    ordered = {name: sorted(rows, key=lambda row: row["doc_id"]) for name, rows in samples.items()}
    return {
        name: [row for row in rows if row["filter"] == rows[0]["filter"]]
        for name, rows in ordered.items()
    }


def given(samples: Samples) -> list[float | str]:
    """All log-likelihoods of choices, or all texts as they were written, in order."""
    responses = [
        response
        for _, rows in sorted(first_filter(samples).items())
        for row in rows
        for (response,) in row["resps"]
    ]
    return [one if isinstance(one, str) else one[0] for one in responses]


def loss_alone(folder: str, dtype: str, device: str, sequences: list[list[int]]) -> float:
    """Nats per predicted token, one document after the other, with transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    total = 0.0
    for sequence in sequences:
        ids = torch.tensor([sequence], device=device)
        with torch.inference_mode():
            total += float(model(ids, labels=ids).loss) * (len(sequence) - 1)
    return total / sum(len(sequence) - 1 for sequence in sequences)


def apart(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The largest difference of two log-likelihoods; for written answers how many differ."""
    pairs = list(zip(ours["answers"], theirs["answers"], strict=True))
    if isinstance(pairs[0][0], str):
        return sum(a != b for a, b in pairs)
    return max(abs(a - b) for a, b in pairs)


def alike(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    """How many questions are judged alike."""
    pairs = [(ours["correct"][name], judged) for name, (judged, *_) in theirs["subtasks"].items()]
    return sum(a == b for pair in pairs for a, b in zip(*pair, strict=True))


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """In words, what is not equal."""
    found = []
    if (same := alike(ours, theirs)) != ours["n_questions"]:
        found.append(f"{ours['n_questions'] - same} questions are judged otherwise")
    if apart(ours, theirs) > CLOSE:
        found.append(f"answers are {apart(ours, theirs)} apart")
    for name, (_, value, stderr) in theirs["subtasks"].items():
        judged = ours["correct"][name]
        share = judged.count("1") / len(judged)
        error = math.sqrt(share * (1 - share) / (len(judged) - 1))
        if not (math.isclose(share, value) and math.isclose(error, stderr, abs_tol=1e-12)):
            found.append(f"{name}: {share} ± {error}, and {value} ± {stderr}")
    value, stderr = theirs["overall"]
    if not math.isclose(ours["accuracy"], value):
        found.append(f"accuracy {ours['accuracy']}, and {value}")
    # Of a group, lm-eval gives another standard error: that of questions within their subjects.
    single = len(theirs["subtasks"]) == 1
    if single and not math.isclose(ours["stderr"], stderr, abs_tol=1e-12):
        found.append(f"standard error {ours['stderr']}, and {stderr}")
    if ours["truncated_prompts"] != theirs["cut"]:
        found.append(f"prompts cut: {ours['truncated_prompts']}, and {theirs['cut']}")
    return found


class Here:
    """The model as a run of the book measures it: all prunings of one that is loaded once."""

    def __init__(self, study: Study, prunings: list[tuple[int, ...]], batch: int) -> None:
        self.model = checkpoints.load_model(study)
        self.tokenizer = checkpoints.load_tokenizer(study, self.model.config)
        self.manager = harness.task_manager(study)
        self.prunings, self.batch = prunings, batch

    def accuracies(self, task: Task) -> tuple[list[dict[str, Any]], float]:
        """What is recorded of each pruning, and the seconds of all. Then all is asked once more,
        for the answers themselves."""
        model, text = self.model, self.tokenizer
        start = time.monotonic()
        found = list(
            evaluate.accuracies(model, text, task, self.manager, self.prunings, self.batch)
        )
        seconds = time.monotonic() - start
        questions = harness.Questions(task, self.manager)
        shared = harness.SharedPass(model, text, self.prunings, self.batch, task.name)
        for number, one in enumerate(found):
            one["answers"] = given(questions.ask(shared.lm(number)))
        return found, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="a checkpoint's folder")
    parser.add_argument("--drop", action="append", help="layers, as 2:3; may be repeated")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=DEFAULT,
        metavar="NAME:LIMIT",
        help="limits are questions of each subject",
    )
    parser.add_argument("--text", type=Path, help="documents, one JSON object with 'text' per line")
    parser.add_argument("--whole", nargs="+", default=[], metavar="NAME:LIMIT")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    os.environ |= {"PRUNING_DATA": str(args.data.resolve()), "HF_HUB_OFFLINE": "1"}
    try:
        problems = compare(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(problems) or "no difference")
    return 1 if problems else 0


def compare(args: argparse.Namespace) -> list[str]:
    """All differences, in words; prints what was measured."""
    limits = {name: int(limit) for name, limit in (task.split(":") for task in args.tasks)}
    tasks = [
        Task(name=name, shots=shots, limit=limit)
        for shots in args.shots
        for name, limit in limits.items()
    ]
    folder = find(args.model)
    whole = [
        Perplexity(name=name, limit=int(limit))
        for name, limit in (one.split(":") for one in args.whole)
    ]
    study = Study(model=str(folder), task_path=str(TASKS), tasks=tasks, perplexity=whole)
    words = ["nothing", *(args.drop or ["2:3"])]
    n_layers = checkpoints.load_config(study).get_text_config().num_hidden_layers
    prunings = [(), *(parse_layers(word, n_layers) for word in words[1:])]
    here = Here(study, prunings, args.batch)
    how = (str(checkpoints.dtype(study)).removeprefix("torch."), str(checkpoints.device(study)))
    problems: list[str] = []
    row(*HEADER), row(*["---"] * len(HEADER))
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProcessPoolExecutor(1, mp_context=spawn) as process,
    ):
        folders = [str(folder), *(str(Path(temporary, str(i))) for i in range(1, len(words)))]
        for place, dropped in zip(folders[1:], prunings[1:], strict=True):
            prune(folder, Path(place), dropped)
        for task in tasks:
            found, seconds = here.accuracies(task)
            for word, place, ours in zip(words, folders, found, strict=True):
                theirs = process.submit(alone, place, *how, args.batch, task).result()
                value, stderr = theirs["overall"]
                share, error = ours["accuracy"], ours["stderr"]
                row(
                    *(task.name, task.shots, word, ours["n_questions"], alike(ours, theirs)),
                    *(f"{apart(ours, theirs):.1g}", f"{share:.4f}", f"{value:.4f}"),
                    *(f"{error:.4f}", f"{stderr:.4f}", ours["truncated_prompts"], theirs["cut"]),
                    *(f"{seconds:.1f}", f"{theirs['seconds']:.1f}"),
                )
                what = f"{task.name}, {task.shots}-shot, {word} dropped"
                problems += [f"{what}: {one}" for one in differences(ours, theirs)]
        for probe in whole:
            there = (here.model, here.tokenizer, probe, here.manager, prunings, args.batch)
            for word, place, ours in zip(
                words, folders, whole_texts.perplexities(*there), strict=True
            ):
                theirs = process.submit(perplexity_alone, place, *how, args.batch, probe).result()
                for unit, value in theirs.items():
                    own = math.exp(ours[unit]["loss"])
                    what = f"{probe.name}, {word} dropped: {own:.6f} per {unit[:-1]}, lm-eval's "
                    what += f"{value:.6f}"
                    print(f"{what} ({ours['tokens']['count']:,} tokens)", flush=True)
                    problems += [] if math.isclose(own, value, rel_tol=1e-4) else [what]
        if args.text:
            text = Text(path=str(args.text.resolve()))
            sequences = corpora.document_sequences(text, here.tokenizer, 64, 512, None)
            pad = here.tokenizer.pad_token_id
            losses = evaluate.losses(here.model, prunings, sequences, args.batch, pad)
            for word, place, ours in zip(words, folders, losses, strict=True):
                theirs = process.submit(loss_alone, place, *how, sequences).result()
                what = f"loss, {word} dropped: {ours['loss']:.6f}, transformers' {theirs:.6f}"
                print(f"{what} ({ours['n_tokens']:,} tokens)")
                problems += [] if math.isclose(ours["loss"], theirs, rel_tol=1e-5) else [what]
    return problems


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
