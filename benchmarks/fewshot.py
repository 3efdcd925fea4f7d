"""Few-shot questions whose prompts share their examples: computed once per subject, or with every
prompt, on a random Llama.

    .venv/bin/python benchmarks/fewshot.py --data FOLDER [--subjects 10 --limit 20]

FOLDER holds MMLU's questions as dev/<subject>_dev.csv and test/<subject>_test.csv with a header
question,choice0,…,choice3,answer. Accuracies have to be equal and log-likelihoods the same to 1e-4.
"""

import argparse
import csv
import math
import tempfile
from pathlib import Path

import yaml
from side_by_side import alternate, milliseconds, random_llama, ratio, tokenizer

from lib.evaluation import harness, sweep
from lib.evaluation.harness import Questions, SharedPass
from lib.pruning.dropped import UNPRUNED
from lib.schema import Study, Task

PROMPT = (
    "{{question.strip()}}\nA. {{choice0}}\nB. {{choice1}}\nC. {{choice2}}\nD. {{choice3}}\nAnswer:"
)


def write_tasks(data: Path, subjects: list[str], folder: Path) -> None:
    """One lm-eval task per subject, worded as MMLU's own, and their group."""
    for subject in subjects:
        files = {name: str(data / name / f"{subject}_{name}.csv") for name in ("dev", "test")}
        task = {
            "task": f"mmlu_{subject}",
            "dataset_path": "csv",
            "dataset_kwargs": {"data_files": files},
            "fewshot_split": "dev",
            "test_split": "test",
            "fewshot_config": {"sampler": "first_n"},
            "output_type": "multiple_choice",
            "description": "The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}.\n\n",
            "doc_to_text": PROMPT,
            "doc_to_choice": ["A", "B", "C", "D"],
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}],
        }
        (folder / f"{subject}.yaml").write_text(yaml.safe_dump(task))
    group = {"group": "mmlu_local", "task": [f"mmlu_{subject}" for subject in subjects]}
    (folder / "group.yaml").write_text(yaml.safe_dump(group))


def longest(data: Path, subject: str, text: object) -> int:
    with open(data / "dev" / f"{subject}_dev.csv", newline="") as file:
        return sum(len(text("\n".join(row.values()))["input_ids"]) for row in csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--subjects", type=int, default=10)
    parser.add_argument("--limit", type=int, default=20, help="questions of each subject")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--positions", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    text = tokenizer()
    model = random_llama(args.layers, args.width, args.positions)
    names = sorted(path.name.removesuffix("_dev.csv") for path in args.data.glob("dev/*_dev.csv"))
    fitting = [name for name in names if longest(args.data, name, text) < args.positions * 0.7]
    subjects = fitting[:: max(1, len(fitting) // args.subjects)][: args.subjects]
    answers: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(args.data.resolve(), subjects, Path(folder))
        task = Task(name="mmlu_local", shots=5, limit=args.limit)
        manager = harness.task_manager(Study(model=".", task_path=folder, tasks=[task]))
        questions = Questions(task, manager)

        def asked(way: str) -> None:
            sweep._ways[model] = way
            shared = SharedPass(model, text, [UNPRUNED], args.batch, task.name)
            samples = questions.ask(shared.lm(0))
            answers[way] = [row for name in sorted(samples) for row in samples[name]]

        once, every = alternate(args.pairs, lambda: asked("shared"), lambda: asked("whole"))
    prompts = [len(text(row["arguments"][0][0])["input_ids"]) for row in answers["shared"]]
    print(
        f"{len(subjects)} subjects, {len(prompts)} questions, prompts of {min(prompts)} to "
        f"{max(prompts)} tokens: shared {milliseconds(once)}, each whole {milliseconds(every)}"
    )
    print(f"each prompt whole over shared examples: {ratio(every, once)}")
    worst = max(
        abs(x[0] - y[0])
        for a, b in zip(answers["shared"], answers["whole"], strict=True)
        for x, y in zip(a["filtered_resps"], b["filtered_resps"], strict=True)
    )
    judged = [[row["acc"] for row in answers[way]] for way in ("shared", "whole")]
    same = sum(a == b for a, b in zip(*judged, strict=True))
    share = sum(judged[0]) / len(prompts)
    print(
        f"judged alike: {same} of {len(prompts)} (accuracy {share:.3f} ± "
        f"{math.sqrt(share * (1 - share) / (len(prompts) - 1)):.3f}); log-likelihoods at most "
        f"{worst:.1e} apart"
    )


if __name__ == "__main__":
    main()
