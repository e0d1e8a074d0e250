#!/usr/bin/env python3
"""Measures what must not grow: memory with many threads, cost by byte and by file with size, and the time to start.

    cargo run -p drydock-package && python3 acceptance/bench/limits.py [--json] [--rounds N] [--quick]

Memory: the peak of each phase's largest process, with 64 processors as far as it can tell (strace answers `sched_getaffinity`), and at most
64 MiB. Growth: exports of one file, of many files, of many layers and beside many tags, of two sizes; what a unit costs at the larger size must
not be more than half as much again. Start: what 100 starts cost, against a rival; the Go launcher is that in REFERENCE_LIFECYCLE_DIR.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import inputs
from bench import EmptyLayers, Tool, in_turns, parser, run
from inputs import MIB

CORES = 64
SEEN_CORES = ["strace", "-f", "-o", "/dev/null", "-e",
              f"inject=sched_getaffinity:retval={CORES // 8}:poke_exit=@arg3={'ff' * (CORES // 8)}"]


class Limits:
    def __init__(self, options, dir):
        self.options, self.dir, self.rows = options, dir, []
        self.tool = Tool("ours", options.executables, options.executables / "launcher", dir / "ours", 3 * MIB)

    def row(self, what, unit, value, limit):
        self.rows.append({"what": what, "unit": unit, "value": value, "limit": limit})
        print(line(self.rows[-1]), file=sys.stderr, flush=True)

    def memory(self):
        quick, tool = self.options.quick, self.tool
        build = inputs.many_layers(self.dir / "memory", 4 if quick else 16, (1 if quick else 64) * MIB)
        images = ["-analyzed", tool.scratch / "again.toml", "-run", tool.scratch / "run.toml"]

        def peak(phase, cost):
            self.row(f"memory, {CORES} threads: {phase}", "MiB", cost["rss"] / MIB, 64)
        peak("exporter", tool.first_export(build, True, prefix=SEEN_CORES))
        peak("analyzer", run([*SEEN_CORES, *tool.command("analyzer", build, *images, "-run-image", "run", "app")], tool.env))
        peak("exporter, nothing changed", tool.export(build, True, "again.toml", prefix=SEEN_CORES))
        layers = EmptyLayers(self.dir, build, 4096 * MIB)
        with layers.empty():
            peak("restorer", run([*SEEN_CORES, *tool.command("restorer", build, *tool.cached(True), *images)], tool.env))
        rebase = [*SEEN_CORES, tool.executables / "rebaser", "-run-image", "run", "-report", tool.scratch / "report.toml", "app"]
        peak("rebaser", run(rebase, tool.env))
        shutil.rmtree(build.layers.parent)

    def growth(self):
        quick, GB = self.options.quick, 10**9
        node = inputs.node_app(self.dir / "node", quick)
        scenes = [
            ("one file", "GB", (1, 2) if quick else (1, 5), lambda dir, n: inputs.one_file(dir, n * (MIB if quick else GB), node)),
            ("files of 1 kB", "file", (300, 1000) if quick else (30_000, 300_000), lambda dir, n: inputs.many_files(dir, n, 1000)),
            ("layers of 1 MiB", "layer", (3, 10) if quick else (20, 100), lambda dir, n: inputs.many_layers(dir, n, MIB)),
        ]
        for what, unit, sizes, make in scenes:
            costs = []
            for n in sizes:
                build = make(self.dir / f"growth-{n}", n)
                costs.append(in_turns(self.options.rounds, lambda: self.tool.first_export(build))[0]["wall"] / n)
                shutil.rmtree(self.dir / f"growth-{n}")
            self.row(f"export of {sizes[1]:,} × {what}, against {sizes[0]:,}", f"× for each {unit}", costs[1] / costs[0], 1.5)
        shutil.rmtree(self.dir / "node")
        self.tags()

    def tags(self):
        """The same export in a repository with few and with many tags of the app, one of which is its own."""
        build = inputs.many_files(self.dir / "tags", 100, 1000)
        few, many = (2, 20) if self.options.quick else (10, 1000)
        costs = []
        self.tool.first_export(build)
        for n in (few, many):
            for tag in range(n):
                other = self.tool.app.parent / f"tag{tag}"
                if not other.exists():
                    shutil.copytree(self.tool.app, other, copy_function=os.link)
            costs.append(in_turns(self.options.rounds, lambda: self.tool.first_export(build))[0]["wall"])
        self.row(f"export beside {many:,} tags, against {few:,}", "×", costs[1] / costs[0], 1.5)
        shutil.rmtree(build.layers.parent)

    def start(self):
        """Processes that do next to nothing, 100 of each."""
        layers = self.dir / "start"
        inputs.write(layers / "config/metadata.toml", '[[buildpacks]]\nid = "bench"\nversion = "1"\napi = "0.10"\n')
        env = self.tool.env | {"CNB_LAYERS_DIR": str(layers), "CNB_APP_DIR": str(self.dir)}
        many = lambda command: lambda: run(["bash", "-c", 'for i in {1..100}; do "$@"; done', "start", *command], env)
        tool, images = self.tool, ["-analyzed", self.tool.scratch / "start.toml", "-run", self.tool.scratch / "run.toml"]
        works = [("launcher", [tool.executables / "launcher", "--", "/bin/true"], "/bin/true by itself", ["/bin/true"], 3)]
        if reference := os.environ.get("REFERENCE_LIFECYCLE_DIR"):
            works.append(("launcher", [tool.executables / "launcher", "--", "/bin/true"], "Go launcher", [Path(reference) / "launcher", "--", "/bin/true"], 1))
        analyzer = [tool.executables / "analyzer", "-layers", layers, *images, "-run-image", "run", "app"]
        works.append(("analyzer on a small layout", analyzer, "/bin/true", ["/bin/true"], 5))
        for what, ours, rival, theirs, limit in works:
            costs = in_turns(self.options.rounds, many(ours), many(theirs))
            self.row(f"start: {what}, {costs[0]['wall'] * 10:.2f} ms, against {rival}", "×", costs[0]["wall"] / costs[1]["wall"], limit)


def line(row):
    return f"{row['what']:75}{row['value']:>9.2f} {row['unit']:18} at most {row['limit']}{'' if row['value'] <= row['limit'] else '  EXCEEDED'}"


def main():
    options = parser(__doc__, "15 GB").parse_args()
    options.executables = options.executables.resolve()
    with tempfile.TemporaryDirectory(prefix="drydock-limits-", dir=options.dir) as dir:
        limits = Limits(options, Path(dir))
        for measure in (limits.memory, limits.start, limits.growth):
            measure()
    print(json.dumps(limits.rows, indent=1) if options.json else "\n".join(map(line, limits.rows)))


if __name__ == "__main__":
    main()
