"""Prints the tables of `make bench`: the median over the rounds for each target and kind of load.

usage: report.py RESULTS.jsonl CONNECTIONS RATE STREAM_RATE CHAPERONE.db
"""

import json
import os
import sqlite3
import sys
import time
from statistics import median

TARGETS = ("direct", "nginx", "chaperone")
COLUMNS = ("requests/s", "p50 us", "p99 us", "added p50", "added p99", "CPU us/req", "CPU/nginx")
# Issue 2: Chaperone's own share of a call at the open loop's rate. What it adds as seen from outside also
# holds a second hop over loopback and the waiting for a shared core.
OWN_P50_US_MAX = 300
OWN_P99_US_MAX = 1000
# Issue 7: how much later than without a proxy the first piece of a stream arrives.
FIRST_PIECE_P50_US_MAX = 1000


def main(path, connections, rate, stream_rate, database):
    with open(path, encoding="utf-8") as lines:
        results = [json.loads(line) for line in lines]
    print_table(f"Closed loop, {connections} connections", summary(results, "closed"))
    open_loop = summary(results, "open")
    print_table(f"Open loop, {rate} requests/s, {connections} connections", open_loop)
    print_bar(own_us(database, results), rate)
    streams = summary(results, "stream")
    print_table(f"First piece of a stream, {stream_rate} streams/s, {connections} connections", streams)
    print_first_piece(streams["chaperone"]["added p50"])
    failed = sum(result["load"]["errors"] for result in results)
    if failed:
        sys.exit(f"{failed} requests failed: these numbers mean nothing")


def summary(results, mode):
    """For each target its row of numbers, None where there is nothing to say."""
    rows = {}
    for target in TARGETS:
        runs = [result for result in results if (result["target"], result["mode"]) == (target, mode)]
        rps, p50, p99 = (median(run["load"][key] for run in runs) for key in ("rps", "p50_us", "p99_us"))
        cpu = None if target == "direct" else median(cpu_us_per_request(run) for run in runs)
        rows[target] = {"requests/s": rps, "p50 us": p50, "p99 us": p99, "CPU us/req": cpu}
    for target in TARGETS[1:]:
        row = rows[target]
        row["added p50"] = row["p50 us"] - rows["direct"]["p50 us"]
        row["added p99"] = row["p99 us"] - rows["direct"]["p99 us"]
        if rows["nginx"]["CPU us/req"]:
            row["CPU/nginx"] = row["CPU us/req"] / rows["nginx"]["CPU us/req"]
    return rows


def cpu_us_per_request(run):
    seconds = run["cpu_ticks"] / os.sysconf("SC_CLK_TCK")
    return seconds * 1e6 / max(run["load"]["requests"], 1)


def print_table(title, rows):
    print(f"\n{title}")
    print(f"{'':10}" + "".join(f"{column:>12}" for column in COLUMNS))
    for target, row in rows.items():
        print(f"{target:10}" + "".join(f"{cell(column, row.get(column)):>12}" for column in COLUMNS))


def cell(column, value):
    if value is None:
        return "-"
    digits = {"CPU us/req": 1, "CPU/nginx": 2}.get(column, 0)
    return f"{value:,.{digits}f}"


def own_us(database, results):
    """Own share of the calls of the last open loop, which are the newest executions."""
    last = [result for result in results if (result["target"], result["mode"]) == ("chaperone", "open")][-1]
    accepted = sum(result["load"]["requests"] for result in results if result["target"] == "chaperone")
    connection = sqlite3.connect(database)
    deadline = time.monotonic() + 30
    while connection.execute("select count(*) from prompt_executions").fetchone()[0] < accepted:
        if time.monotonic() > deadline:
            sys.exit("the executions did not reach the store")
        time.sleep(0.2)
    newest = connection.execute(
        "select overhead_ms from prompt_executions order by created_at desc limit ?", (last["load"]["requests"],)
    )
    return sorted(row[0] * 1000 for row in newest)


def print_bar(own, rate):
    p50, p99 = own[len(own) // 2], own[int(len(own) * 0.99)]
    met = p50 < OWN_P50_US_MAX and p99 < OWN_P99_US_MAX
    print(
        f"\nOwn overhead at {rate} requests/s: p50 {p50:.0f} us (bar {OWN_P50_US_MAX}), "
        f"p99 {p99:.0f} us (bar {OWN_P99_US_MAX}): {'met' if met else 'NOT met'}"
    )


def print_first_piece(added):
    met = "met" if added <= FIRST_PIECE_P50_US_MAX else "NOT met"
    print(f"\nFirst piece later than without a proxy: p50 {added:.0f} us (bar {FIRST_PIECE_P50_US_MAX}): {met}")


if __name__ == "__main__":
    main(*sys.argv[1:])
