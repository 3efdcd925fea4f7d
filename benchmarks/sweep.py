"""All prunings of one strategy in one pass, against lm-eval run model by model, and against the
layers and heads that cannot be avoided.

    .venv/bin/python benchmarks/sweep.py [--layers 24 --width 256 --strategy simple --limit 100]
    PRUNING_DATA=FOLDER .venv/bin/python benchmarks/sweep.py --model CHECKPOINT --task arc_easy

Every accuracy has to be equal and every log-likelihood the same to 1e-4.
"""

import argparse
import random
import time

import torch
from side_by_side import milliseconds, ratio, seconds, subject, text_of

from lib import paths
from lib.evaluation import evaluate, harness
from lib.evaluation.harness import Questions, SharedPass
from lib.evaluation.sweep import layer_passes
from lib.pruning.dropped import UNPRUNED, Dropped, simple, span
from lib.pruning.surgery import pruned
from lib.schema import Study, Task


def chosen_blocks(strategy: str, layers: int) -> list[Dropped]:
    """The unpruned model and one block per n. The similarity strategy's blocks depend on a model;
    for timing they start anywhere, as those of a random model do."""
    draw = random.Random(0)
    if strategy == "simple":
        return [UNPRUNED, *(simple(n, layers) for n in range(1, layers))]
    starts = {n: draw.randint(0, layers - n) for n in range(1, layers)}
    return [UNPRUNED, *(span(start, start + n) for n, start in starts.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--model", help="a folder or a GGUF file, in place of a random Llama")
    parser.add_argument("--task", help="of tasks/, in place of one of the almanac's")
    parser.add_argument("--strategy", choices=["simple", "similarity"], default="simple")
    parser.add_argument("--limit", type=int, default=100, help="questions")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    model, text = subject(args.model, args.layers, args.width), text_of(args.model)
    layers = model.config.num_hidden_layers
    task = Task(name=args.task or "almanac_one_hop", limit=args.limit)
    tasks = paths.ROOT / ("tasks" if args.task else "almanac/tasks")
    study = Study(model=".", task_path=str(tasks), tasks=[task])
    manager = harness.task_manager(study)
    blocks = chosen_blocks(args.strategy, layers)
    lm_eval = harness.harness()
    from lm_eval.models.huggingface import HFLM

    swept: list[list[dict]] = []
    alone: list[list[dict]] = []

    def one_pass() -> None:
        swept.clear()
        questions = Questions(task, manager)
        shared = SharedPass(model, text, blocks, args.batch, task.name)
        for number in range(len(blocks)):
            swept.append(questions.ask(shared.lm(number))[task.name])

    def model_by_model() -> None:
        alone.clear()
        for block in blocks:
            with pruned(model, block):
                lm = HFLM(pretrained=model, tokenizer=text, batch_size=args.batch)
                loaded = manager.load([task.name])
                found = lm_eval.evaluate(
                    lm, task_dict=loaded, limit=args.limit, bootstrap_iters=0, log_samples=True
                )
                alone.append(found["samples"][task.name])

    def unavoidable() -> float:
        """Seconds of the layers that the tree of prunings has, on batches as lm-eval makes them,
        and of a head for each model where answers are read."""
        asked = [pair for row in swept[0] for pair in row["arguments"]]
        rows = sorted(
            ((text(context + answer)["input_ids"][:-1], len(text(answer)["input_ids"]))
             for context, answer in asked),
            key=lambda row: -len(row[0]),
        )  # fmt: skip
        decoder, head, layered, headed = (
            model.get_decoder(),
            model.get_output_embeddings(),
            0.0,
            0.0,
        )
        for first in range(0, len(rows), args.batch):
            part = rows[first : first + args.batch]
            tokens = torch.zeros(len(part), len(part[0][0]), dtype=torch.long)
            for i, (row, _) in enumerate(part):
                tokens[i, : len(row)] = torch.tensor(row)
            with torch.inference_mode():
                start = time.perf_counter()
                states = decoder(input_ids=tokens, use_cache=False).last_hidden_state
                between = time.perf_counter()
                head(states.flatten(0, 1)[: sum(read for _, read in part)])
                layered += between - start
                headed += time.perf_counter() - between
        passes = layer_passes(block.kept(layers) for block in blocks)
        return layered / layers * passes + headed * len(blocks)

    one_pass()
    times: dict[str, list[float]] = {"sweep": [], "alone": [], "layers": []}
    for _ in range(args.pairs):
        times["sweep"].append(seconds(one_pass))
        times["layers"].append(unavoidable())
        times["alone"].append(seconds(model_by_model))
    print(
        f"{layers} layers, width {model.config.hidden_size}, {args.strategy}, "
        f"{len(blocks)} models, {args.limit} questions: sweep {milliseconds(times['sweep'])}, "
        f"lm-eval model by model {milliseconds(times['alone'])}"
    )
    print(f"lm-eval model by model over sweep: {ratio(times['alone'], times['sweep'])}")
    print(
        f"sweep over the layers and heads it cannot avoid: {ratio(times['sweep'], times['layers'])}"
    )
    compare(swept, alone)
    found = evaluate.accuracy(model, text, task, manager, args.batch)
    print(f"unpruned accuracy {found['accuracy']:.3f} ± {found['stderr']:.3f}")


def compare(ours: list[list[dict]], theirs: list[list[dict]]) -> None:
    worst, differing = 0.0, 0
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a["doc_id"] == b["doc_id"]
            pairs = zip(a["filtered_resps"], b["filtered_resps"], strict=True)
            worst = max([worst, *(abs(x[0] - y[0]) for x, y in pairs)])
            differing += a["acc"] != b["acc"]
    count = sum(map(len, ours))
    print(f"judged differently: {differing} of {count}; log-likelihoods {worst:.1e} apart at most")


if __name__ == "__main__":
    main()
