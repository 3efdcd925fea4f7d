"""Angular distances across blocks of layers, of the model and of its untrained twin (Fig. 4 of
Gromov et al.)."""

from lib.experiments.opened import OpenStudy
from lib.sections import tables
from lib.sections.section import Extra, Section, Table


def extras(opened: OpenStudy) -> list[Extra]:
    settings = opened.study.distances
    tokens = settings.n_sequences * settings.length
    found = [Extra("distances", "distances", lambda opened: opened.distances, tokens)]
    if opened.study.controls.untrained:
        what = "distances of the untrained twin"
        found.append(
            Extra("distances-untrained", what, lambda opened: opened.untrained_distances, tokens)
        )
    return found


SECTION = Section(
    extras=extras,
    tables=(
        Table("angular_distances", tables.angular_distances, "a block", tables.DISTANCE),
        Table(
            "distances_after_norm",
            tables.distances_after_norm,
            "a block that ends with the last layer, whose output is taken after the final norm",
            tables.DISTANCE,
        ),
        Table("optimal_blocks", tables.optimal_blocks, "a number of layers", tables.BLOCK),
        Table(
            "untrained_distances",
            tables.untrained_distances,
            "a block of the untrained twin",
            tables.DISTANCE,
        ),
    ),
    claims=("gromov-6", "gromov-7"),
)
