"""Writes RESULTS.md from what was measured."""

import json
import os
import statistics

from measure import FOREIGN
from peers import PEERS
from places import BENCHES, MEASURED
from plot import plot
from rows import ROWS

HEADS = {"cpu_us": "CPU, us/request", "p99_us": "p99, us", "rss_mb": "resident, MB", "ready_ms": "ms"}
# Under this share of its CPU a peer was not what limited the run.
SATURATED = 0.9


def clean(runs):
    """Those that nothing disturbed, where there are any; all, where there are none."""
    return [run for run in runs if run["foreign"] <= FOREIGN and run["bad"] == 0] or runs


def middle(runs, key):
    values = [run[key] for run in clean(runs) if key in run]
    return (statistics.median(values), min(values), max(values)) if values else None


def number(value, digits=1):
    return f"{value:.{digits}f}"


def stored(row, seconds, rounds, about, found):
    """Keeps a row's measurements, so that rows can be measured one at a time."""
    os.makedirs(MEASURED, exist_ok=True)
    with open(os.path.join(MEASURED, f"{row}.json"), "w") as file:
        json.dump({"about": about, "seconds": seconds, "rounds": rounds, "found": found}, file, indent=1)


def gathered(about):
    """The rows that were measured with the same binary and versions on the same machine, in the report's order."""
    rows = {}
    for name in ROWS:
        path = os.path.join(MEASURED, f"{name}.json")
        if os.path.exists(path):
            with open(path) as file:
                kept = json.load(file)
            if alike(kept["about"], about):
                rows[name] = kept
    return rows


def alike(one, other):
    """Whether figures may stand in one report. A load that came later changes nothing."""
    same = lambda about: {**about, "versions": {**about["versions"], "oha": None}}
    return same(one) == same(other)


def table(name, kept):
    """A row of the report: a line for each variant."""
    row, found = ROWS[name], kept["found"]
    compared = any(row.base or one.base for one in row.variants)
    # With several peers the reader wants to know how mintgate stands to each.
    ours = [one.key for one in row.variants if one.key.startswith("mintgate") and one.peer != "mintgate-profiled"]
    ours = ours if len(row.variants) > 3 else []
    timed = row.figure == "p99_us"
    memory = row.figure != "ready_ms"
    head = ["", HEADS[row.figure], "min to max"] + ([f"against {row.against}"] if compared else [])
    head += ["mintgate against it"] if len(ours) == 1 else []
    head += ["p50, us", "CPU, us/request"] if timed else []
    head += ["requests/s", "its CPU busy", "resident, MB"] if memory and not timed and row.figure != "rss_mb" else []
    head += ["requests"] if row.figure == "rss_mb" else []
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for one in row.variants:
        runs = found[one.key]
        value, low, high = middle(runs, row.figure)
        cells = [label(one), number(value), f"{number(low)} to {number(high)}"]
        if compared:
            cells.append(number(value / middle(found[one.base or row.base], row.figure)[0], 2))
        if len(ours) == 1:
            cells.append(number(middle(found[ours[0]], row.figure)[0] / value, 2))
        if timed:
            cells += [number(middle(runs, "p50_us")[0], 0), number(middle(runs, "cpu_us")[0])]
        elif row.figure == "rss_mb":
            cells += [f"{middle(runs, 'requests')[0]:,.0f}".replace(",", " ")]
        elif memory:
            rps, util = middle(runs, "rps"), middle(runs, "util")
            cells += [number(rps[0], 0) if rps else "-", busy(util), number(middle(runs, "rss_mb")[0])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines + notes(row, found)


def busy(util):
    if not util:
        return "-"
    share = f"{min(util[0], 1) * 100:.0f} %"
    return share if util[0] >= SATURATED else f"{share} (*)"


def label(one):
    return one.label or PEERS[one.peer].label


def notes(row, found):
    said = []
    if any((util := middle(runs, "util")) and util[0] < SATURATED for runs in found.values()) and row.figure == "cpu_us":
        said.append("(*) The load or the upstream was the limit, not the peer: its requests/s say nothing, and a peer that is "
                    "not busy wakes more often for its work.")
    disturbed = sum(run["foreign"] > FOREIGN for runs in found.values() for run in runs)
    if disturbed:
        said.append(f"{disturbed} of {sum(map(len, found.values()))} measurements were disturbed by other processes.")
    bad = sum(run["bad"] for runs in found.values() for run in runs)
    if bad:
        said.append(f"**{bad} requests failed: this row does not count.**")
    return [line for text in said for line in ("", text)]


def write(about):
    """The report and its plot; returns the rows in which requests failed."""
    rows = gathered(about)
    place, used = about["machine"], about["versions"]
    lines = [
        "# What a request costs, beside the peers",
        "",
        "`benches/peers/run` wrote this file; [how it measures](peers/README.md). Compare lines of one table: absolute "
        "figures move with the machine.",
        "",
        f"- Machine: {place['processor']}, {place['cores']} cores, {place['memory']}; {place['system']}, "
        f"Linux {place['kernel']}.",
        "- Versions: " + ", ".join(map(" ".join, used.items())) + ". In brackets: the binary's SHA-256.",
        "- Every peer has one worker, alone on one CPU; the load and the upstream share another. Figures are medians of the "
        "rounds.",
        "",
        "![CPU time per request of each peer](results.svg)",
    ]
    for name, kept in rows.items():
        row = ROWS[name]
        how = f"{kept['rounds']} rounds" if name in ("ready", "rss") else f"{kept['rounds']} rounds of {kept['seconds']} s"
        how = how.replace("1 rounds", "1 round") if kept["rounds"] == 1 else how
        lines += ["", f"## {row.title}", "", f"{row.says} {how}.", "", *table(name, kept)]
    with open(os.path.join(BENCHES, "RESULTS.md"), "w") as file:
        file.write("\n".join(lines) + "\n")
    with open(os.path.join(BENCHES, "results.svg"), "w") as file:
        file.write(plot(bars(rows)))
    print(f"  wrote benches/RESULTS.md and benches/results.svg: {', '.join(rows)}", flush=True)
    return [name for name, kept in rows.items() if any(run["bad"] for runs in kept["found"].values() for run in runs)]


def bars(rows):
    """The panels of the plot: each row that is about CPU time."""
    panels = []
    for name, kept in rows.items():
        row = ROWS[name]
        if row.figure == "cpu_us":
            bar = lambda one: (label(one), *middle(kept["found"][one.key], "cpu_us"), one.peer.startswith("mintgate"))
            panels.append((row.title, [bar(one) for one in row.variants]))
    return panels
