#!/usr/bin/env python3
"""What a command costs. `measure.py COMMAND…` runs it and prints its cost as JSON.

Wall time in seconds; CPU time in seconds, user and system, of the command and all children that it waited for; peak
memory in bytes, of the largest single process among them (never less than Python's own, about 10 MiB); bytes written, as the kernel counts them in `write_bytes` of
/proc/PID/io: what was put into the page cache of a file system with a disk beneath, be it on the disk yet or not.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


class Failed(Exception):
    """A command that is measured did not do its work."""


def measure(command):
    """Runs a command; gives a dict with `wall`, `cpu`, `rss` and `written`."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read()
    # Leaves the process as a zombie, whose counters can still be read.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    wall = time.monotonic() - start
    written = bytes_written(child.pid)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise Failed(f"exit {child.returncode}: {' '.join(map(str, command))}\n{said.decode(errors='replace')}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024, "written": written}


def bytes_written(pid):
    """`write_bytes` of a process and the children that it waited for; None where the kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def median(costs):
    """The median of each figure by itself."""
    def of(name):
        values = [cost[name] for cost in costs if cost[name] is not None]
        return statistics.median(values) if values else None
    return {name: of(name) for name in ("wall", "cpu", "rss", "written")}


if __name__ == "__main__":
    try:
        print(json.dumps(measure(sys.argv[1:])))
    except Failed as error:
        sys.exit(str(error))
