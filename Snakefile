"""What depends on what: a study's measurements, its sections, then the site over all studies.

    make book                                    # all of it, on this computer
    snakemake --cores 4 --config study=mine.yaml sections=01,02
    snakemake --workflow-profile profiles/slurm --config study=mine.yaml
    snakemake -n --config study=mine.yaml        # which jobs there are, and what they take

`lib.book.graph` says which jobs there are and which of them are pending: those that are missing or
made from something that has changed since, and all that waits for them. Here they are only
scheduled.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from lib.book import ending, graph, progress, warm
from lib.book.configuration import configuration
from lib.errors import UserError

# Snakemake itself does not say so before all rules are known.
DRY = not {"-n", "--dry-run", "--dryrun"}.isdisjoint(sys.argv)

try:
    CORES = workflow.cores
except WorkflowError:  # none are given where jobs run elsewhere
    CORES = os.cpu_count() or 1

RUN = ending.with_starter() if workflow.is_main_process else None
os.environ[ending.STARTED_BY] = str(os.getpid())  # jobs end with the process that starts them

try:
    CONFIG = configuration(config)
    if workflow.is_main_process and DRY:
        print(progress.described(graph.build(CONFIG, CORES)))
        sys.exit(0)
    elif workflow.is_main_process:
        LOCK = progress.only_run(RUN)
        warm_up = warm.start if not CONFIG.elsewhere else lambda: None
        GRAPH = graph.build(CONFIG, CORES, warm_up)
        graph.begin(GRAPH)
        if GRAPH.pending:
            warm_up()
    else:
        GRAPH = graph.load(Path(CONFIG.study).stem)
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


URGENCY = GRAPH.until_end()


def ended(job):
    """As Snakemake likes it: below the repository."""
    return os.path.relpath(job.ended, workflow.basedir)


rule all:
    input:
        [ended(job) for job in GRAPH.pending],


localrules:
    all,
    job_site,


for job in GRAPH.pending:

    rule:
        name:
            f"job_{job.name}".replace("-", "_")
        input:
            [ended(before) for before in GRAPH.waits_for(job)],
        output:
            ended(job),
        params:
            job=job.name,
        priority: round(URGENCY[job.name])
        threads: job.threads
        resources:
            mem_mb=lambda wildcards, attempt, job=job: job.memory_mb * attempt,
            runtime=lambda wildcards, attempt, job=job: job.minutes * attempt,
            gpu=job.gpus,
        message:
            # Formatted by Snakemake: braces stand for themselves.
            f"{job.what}, of study {GRAPH.study}".replace("{", "{{").replace("}", "}}")
        shell:
            "exec {sys.executable:q} -m lib.book.warm lib.book.worker {params.job:q} --study {GRAPH.study:q}"
