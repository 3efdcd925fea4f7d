"""What depends on what: a study's sections in order, then the site over all studies run here.

Started by `make book`, which checks the study first. Sections run one after another: they share
measurements, and each uses all cores.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from lib import paths
from lib import study as studies

STUDY = studies.load(config.get("study", paths.DEFAULT_STUDY))
SECTIONS = paths.sections()
OUTSIDE = {
    *("run.py", "site.py", "publish.py", "pruning.py", "card.py", "export.py"),
    *("plan.py", "model_tables.py"),
}
HELPERS = [path for path in Path("lib").glob("*.py") if path.name not in OUTSIDE]
SETTINGS = [STUDY.file] + ([studies.base(Path(STUDY.file), STUDY.like)] if STUDY.like else [])
TABLES = {
    "01": ["angular_distances", "distances_after_norm", "optimal_blocks"]
    + ["untrained_distances"] * STUDY.controls.untrained,
    "02": ["qa", "transitions"],
    "03": ["loss"],
    "04": ["strategies_compared"],
    "05": ["lora_rank", "ranks_compared"],
    "06": ["prompts", "prompts_compared"],
    "07": ["healing_seeds", "healing_seeds_compared"],
    "08": ["text_distances", "text_blocks"],
    "09": ["cost"],
    "10": ["questions", "texts"],
    "11": ["teacher"],
    "12": ["families"],
    "13": ["unpruned"],
    "14": ["verdicts"],
}


def relative(path):
    """As Snakemake likes it: below the repository without a leading slash, elsewhere absolute."""
    path = Path(path)
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)


def executed(number):
    return relative(paths.executed(STUDY.name, SECTIONS[number].name))


def local_files():
    """Files of the study that decide results: checkpoint, texts, tasks. Hub content has digests."""
    texts = (STUDY.validation_text, STUDY.healing_text, *STUDY.other_texts)
    found = [Path(text.path) for text in texts if text.path]
    data = os.environ.get("PRUNING_DATA") if STUDY.task_path else None
    for folder in (STUDY.model if STUDY.model_is_local else None, STUDY.task_path, data):
        if folder:
            found += [p for p in Path(folder).rglob("*") if p.is_file() and p.suffix != ".pyc"]
    for control in STUDY.controls.studies:
        found += sorted(paths.published(control).rglob("*.*"))
    return [relative(path) for path in found]


def other_runs():
    """Tables of other studies, which the families' section sets side by side."""
    read = {"angular_distances", "qa", "loss", "transitions", "verdicts", "study"}
    own = (paths.results(STUDY.name), paths.published(STUDY.name))
    found = [
        *paths.results("").glob("*/tables/*.csv"),
        *paths.published("").glob("*/tables/*.csv"),
        *paths.published("").glob("*/study.json"),
    ]
    return [
        relative(path)
        for path in sorted(found)
        if path.stem in read and not any(folder in path.parents for folder in own)
    ]


def before(number):
    """The sections that a section builds on: 01 chooses the blocks, the rest share models."""
    last = [number for number in SECTIONS if "verdicts" in SECTIONS[number].name] + ["00"]
    order = sorted(SECTIONS, key=lambda n: (last.index(n) + 1 if n in last else 0, n))
    return [executed(other) for other in order[: order.index(number)][-1:]]


# Sections are asked for beside the site: a missing input alone does not rerun what is built from it.
rule all:
    input:
        "_build/html/.complete",
        [executed(number) for number in SECTIONS],
        [
            relative(paths.tables(STUDY.name) / f"{table}.csv")
            for number in SECTIONS
            for table in TABLES.get(number, [])
        ],


rule site:
    input:
        [executed(number) for number in SECTIONS],
        [relative(p) for p in paths.BUILD.glob("executed/*/*.ipynb")],
        [str(p) for p in Path("book").rglob("*") if p.is_file()],
        "_config.yml",
        "_toc.yml",
        "lib/site.py",
        "lib/model_tables.py",
        "lib/plan.py",
        sorted(str(path) for path in Path("studies").glob("*.yaml")),
    output:
        "_build/html/.complete",
    log:
        "_build/logs/site.log",
    message:
        "building the site"
    shell:
        "{sys.executable} -m lib.site --study {STUDY.file:q} > {log} 2>&1"
        " || {{ tail -n 30 {log} >&2; exit 1; }}; touch {output}"


for number, notebook in SECTIONS.items():

    rule:
        name:
            f"section_{number}"
        input:
            before(number),
            local_files(),
            other_runs() if "families" in notebook.name else [],
            notebook=relative(notebook),
            study=[relative(path) for path in SETTINGS],
            helpers=[str(path) for path in HELPERS],
        output:
            executed(number),
            [
                relative(paths.tables(STUDY.name) / f"{table}.csv")
                for table in TABLES.get(number, [])
            ],
        params:
            number=number,
        threads: workflow.cores
        message:
            f"section {notebook.stem} of study {STUDY.name}"
        shell:
            "{sys.executable} -m lib.run {params.number} --study {STUDY.file:q} --checked"
