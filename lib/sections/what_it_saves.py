"""What pruning saves: memory, operations and time against the fraction dropped (§1 and §5 of Gromov
et al.)."""

from lib.experiments import costs
from lib.sections.section import Extra, Section, Table
from lib.sections.tables import DROPPED

SECTION = Section(
    extras=lambda opened: [
        Extra("cost", "memory, operations and times", costs.cost_table, seconds=30.0, alone=True)
    ],
    tables=(
        Table(
            "cost",
            costs.cost_table,
            "a number format and a number of layers",
            {
                "weights": "number format",
                **DROPPED,
                "start": "first layer of the block",
                "stop": "first layer behind the block",
                "parameters": "number of parameters",
                "bytes": "memory of the weights",
                "flops_per_token": "operations to read a token, counted",
                "flops_by_parameters": "twice the parameters that a token is multiplied with",
                "read_seconds": "time to read a token, median of the repeats",
                "read_stderr": "its standard error",
                "write_seconds": "time to write a token, median of the repeats",
                "write_stderr": "its standard error",
                "repeats": "number of repeats",
                "device": "processor or GPU",
                "threads": "number of threads of the processor",
                "peak_bytes": "most memory in use while it read and wrote; on a GPU only",
            },
        ),
    ),
    claims=("gromov-13",),
)
