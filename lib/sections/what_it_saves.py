"""What pruning saves: memory, operations and time against the fraction dropped (§1 and §5 of Gromov
et al.)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lib.experiments import costs
from lib.experiments.opened import OpenStudy
from lib.sections import finding
from lib.sections.columns import DROPPED
from lib.sections.figures import fraction_axis, grid, shared_legend
from lib.sections.looks import INK, OTHERS
from lib.sections.section import Extra, Section, Table
from lib.statistics.lines import straight_line

# What falls: its column, and that of its standard error, if it has one.
QUANTITIES = {
    "memory of the weights": ("bytes", None),
    "operations per token": ("flops_per_token", None),
    "time to read a token": ("read_seconds", "read_stderr"),
    "time to write a token": ("write_seconds", "write_stderr"),
}
UNITS = {"bytes": "B", "flops_per_token": "FLOP", "read_seconds": "s", "write_seconds": "s"}
# Of the study's number format and of 4-bit: shapes and lines differ, not only colours.
FORMATS = [
    {"color": INK, "marker": "o", "linestyle": "-"},
    {"color": OTHERS[1], "marker": "s", "linestyle": ":", "markerfacecolor": "white"},
]
BY_PARAMETERS = {"color": OTHERS[2], "marker": "^", "linestyle": "--", "markerfacecolor": "white"}


def cost_panels(cost: pd.DataFrame) -> Figure:
    """Memory, operations and times against fraction: what was measured, with one standard error,
    and the least-squares line, drawn on to where no layer would be left."""
    figure, panels = grid(2, 2, width=4.2, height=3.1)
    for axes, (what, (column, error)) in zip(panels.flat, QUANTITIES.items(), strict=True):
        for style, (weights, rows) in zip(
            FORMATS, cost.groupby("weights", sort=False), strict=False
        ):
            _points(axes, rows, column, error, style, weights)
            if column == "flops_per_token":  # the same in 4-bit
                by_parameters = "2 × parameters multiplied"
                _points(axes, rows, "flops_by_parameters", None, BY_PARAMETERS, by_parameters)
                break
        axes.set_title(what.capitalize(), fontsize="medium")
        axes.yaxis.set_major_formatter(EngFormatter(UNITS[column]))
        axes.set_ylim(bottom=0)
        fraction_axis(axes)
    shared_legend(figure, panels)
    return figure


def _points(
    axes: Axes, rows: pd.DataFrame, column: str, error: str | None, style: dict, label: str
) -> None:
    start, end, _ = fitted(rows, column)
    line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.1}
    axes.plot([0, 1], [start, end], **line)
    marks = style | {"linestyle": "none"}
    axes.errorbar(
        rows["fraction"], rows[column], yerr=rows[error] if error else None, label=label, **marks
    )


def fitted(rows: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """The least-squares line through a column against fraction: its value at fraction 0 and at
    fraction 1, and R²."""
    fraction, values = rows["fraction"].to_numpy(), rows[column].to_numpy(float)
    slope, start, fit = straight_line(fraction, values)
    return start, start + slope, fit


def lines(cost: pd.DataFrame) -> pd.DataFrame:
    """How straight each quantity falls: `saved`, the part of the line's start that goes with every
    tenth of the layers, `left`, the part that would stay without any layer, their standard errors
    (from those of the points, by resampling), and R² over so many `models`."""
    rows = []
    for weights, group in cost.groupby("weights", sort=False):
        for what, (column, error) in QUANTITIES.items():
            start, end, r_squared = fitted(group, column)
            spread = group[error] if error else 0 * group[column]
            drawn = np.random.default_rng(0).normal(
                group[column], spread, (costs.RESAMPLES, len(group))
            )
            slopes, starts = np.polyfit(group["fraction"], drawn.T, 1)
            stderr = float((slopes / starts).std(ddof=1))
            rows.append(
                {"what": what, "weights": weights, "saved": 0.1 * (1 - end / start)}
                | {"saved_stderr": 0.1 * stderr, "left": end / start, "left_stderr": stderr}
                | {"r_squared": r_squared, "models": len(group)}
                | {"repeats": group["repeats"].iloc[0] if error else 1}
            )
    return pd.DataFrame(rows)


def shares(cost: pd.DataFrame) -> pd.DataFrame:
    """Every model's memory, operations and times over those of the unpruned model in the study's
    number format, times with their standard errors."""
    whole = cost.iloc[0]
    rows = []
    for i, row in cost.iterrows():
        found = {"weights": row["weights"], "n": row["n"], "fraction": _percent(row["fraction"])}
        for what, (column, error) in QUANTITIES.items():
            share = row[column] / whole[column]
            # A model over itself is one without doubt.
            noise = (
                share * np.hypot(row[error] / row[column], whole[error] / whole[column])
                if error and i
                else None
            )
            found[what] = f"{share:.3f}" + (f" ± {noise:.3f}" if noise is not None else "")
        rows.append(found)
    return pd.DataFrame(rows)


def measured(cost: pd.DataFrame) -> pd.DataFrame:
    """The table `cost` with units."""
    operations, parameters = EngFormatter("FLOP", places=2), EngFormatter(places=2)
    size = EngFormatter("B", places=2)
    return pd.DataFrame(
        {
            "weights": row.weights,
            "n": row.n,
            "fraction": _percent(row.fraction),
            "parameters": parameters(row.parameters),
            "memory": size(row.bytes),
            "FLOPs per token, counted": operations(row.flops_per_token),
            "2 × parameters": operations(row.flops_by_parameters),
            "reading a token [ms]": _milliseconds(row.read_seconds, row.read_stderr),
            "writing a token [ms]": _milliseconds(row.write_seconds, row.write_stderr),
            "repeats": row.repeats,
        }
        for row in cost.itertuples()
    )


def straightness(lines: pd.DataFrame) -> pd.DataFrame:
    """`lines` in words."""
    return pd.DataFrame(
        {
            "what": row.what,
            "weights": row.weights,
            "saved by a tenth of the layers": _with_error(row.saved, row.saved_stderr),
            "left without any layer": _with_error(row.left, row.left_stderr),
            "R² of the line": f"{row.r_squared:.4f}",
            "models": row.models,
            "repeats": row.repeats,
        }
        for row in lines.itertuples()
    )


def example(opened: OpenStudy) -> pd.DataFrame:
    """The arithmetic of §5 (`lib.experiments.costs.paper_example`) with units."""
    size, operations = EngFormatter("B", places=1), EngFormatter("FLOP", places=1)
    parameters = EngFormatter(places=2)
    return pd.DataFrame(
        {
            "model": row.model,
            "weights": row.weights,
            "layers dropped": _percent(row.fraction),
            "parameters": parameters(row.parameters),
            "memory": size(row.bytes),
            "memory, as printed": "" if pd.isna(row.printed_bytes) else size(row.printed_bytes),
            "2 × parameters, per token": operations(row.flops),
            "FLOPs per token, as printed": ""
            if pd.isna(row.printed_flops)
            else operations(row.printed_flops),
        }
        for row in costs.paper_example(opened).itertuples()
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g}%"


def _milliseconds(value: float, error: float) -> str:
    return f"{1e3 * value:.3g} ± {1e3 * error:.1g}"


def _with_error(value: float, error: float) -> str:
    return f"{100 * value:.2f}%" + (f" ± {100 * error:.2f}" if error > 1e-9 else "")


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """What every tenth of the layers saves, in the study's own number format."""
    cost = finding.rows(made, "cost", "n", *UNITS)
    own = cost[cost["weights"].isin(cost["weights"].head(1))]
    if len(own) < 2:
        return ""
    saved = {}
    for row in lines(own).itertuples():
        error = 100 * row.saved_stderr if row.repeats > 1 else np.nan  # sizes have none
        saved[row.what] = f"{finding.with_error(100 * row.saved, error)}%"
    device = own["device"].iloc[0]
    return (
        f"Every tenth of the layers that goes saves {saved['memory of the weights']} of the memory "
        f"of the weights, {saved['time to read a token']} of the time to read a token and "
        f"{saved['time to write a token']} of the time to write one "
        f"({len(own)} sizes, {own['repeats'].iloc[0]} repeats each, {device})."
    )


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
                "read_seconds": "time to read a token, median of the repeats; a processor's own",
                "read_stderr": "its standard error",
                "write_seconds": "time to write a token, in the same way",
                "write_stderr": "its standard error",
                "repeats": "number of repeats",
                "device": "processor or GPU",
                "threads": "number of threads of the processor",
                "peak_bytes": "most memory in use while it read and wrote; on a GPU only",
            },
        ),
    ),
    claims=("gromov-13",),
    in_short=sentence,
)
