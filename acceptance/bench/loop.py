#!/usr/bin/env python3
"""Measures what users wait for: builds, one after another, each phase with the page cache as the one before left it.

    cargo run -p drydock-package && python3 acceptance/bench/loop.py [--json] [--rounds N] [--scene NAME]…

Builds of each scene: the first; again, with nothing changed; with a file of the app changed; with a file of a cached layer changed. Every
build begins with an empty layers folder, as platforms begin it, and has an analyzer, a restorer (but for the first) and an exporter with a
cache; the buildpacks between them take no time here. Idle memory that a virtual machine's host took back is fetched before each phase. The rival is the Go lifecycle in REFERENCE_LIFECYCLE_DIR; the two take turns.

The scenes: `large` (few large files), `small` (many small ones), `both`, and `packages`, Python packages that nothing was tuned on.
`--layer DIR` (several), `--app DIR` and `--run-image LAYOUT` make a scene of one's own.
"""

import itertools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import inputs
from bench import Tool, new_file_system, parser, run
from inputs import BUILDPACK, MIB
from measure import median

BUILDS = ("first build", "nothing changed", "app file changed", "layer file changed")
ASKED = {("first build", "exporter"): 10, ("nothing changed", "restorer"): 2.5, ("nothing changed", "exporter"): 50,
         ("nothing changed", "build"): 25}


class Scene:
    """What buildpacks made and an app, both kept aside, and the folders that builds see."""

    def __init__(self, dir, name, made):
        self.name, self.dir, self.made = name, dir / "scene", made
        self.dir.mkdir(exist_ok=True)
        self.layers, self.app = self.dir / "layers", self.dir / "app"
        self.changes = itertools.count()

    def start(self):
        """As before the first build, with what its buildpacks made."""
        shutil.copytree(self.made.app, self.app, symlinks=True)
        shutil.copytree(self.made.layers, self.layers, symlinks=True)
        os.sync()

    def begin_build(self):
        """An empty layers folder; removing the old one is no part of a build."""
        self.layers.rename(self.dir / f"layers-{next(self.changes)}")
        (self.layers / BUILDPACK).mkdir(parents=True)
        shutil.copy(self.made.layers / "group.toml", self.layers)

    def buildpacks(self):
        """What buildpacks do that keep their layers."""
        (self.layers / "config").mkdir()
        shutil.copy(self.made.layers / "config/metadata.toml", self.layers / "config")
        for toml in (self.made.layers / BUILDPACK).glob("*.toml"):
            shutil.copy(toml, self.layers / BUILDPACK)

    def change_app(self):
        self.change(self.app)

    def change_layer(self):
        self.change(min(path for path in (self.layers / BUILDPACK).iterdir() if path.is_dir()))

    def change(self, folder):
        file = min(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        with open(file, "a") as file:
            file.write(f"{next(self.changes)}\n")


class Build:
    """What a `Tool` takes for a build."""

    def __init__(self, scene):
        self.layers, self.app = scene.layers, scene.app


def phase(tool, scene, name, *arguments):
    command = [tool.executables / name, "-layers", scene.layers, *arguments]
    return run(command, tool.env, sync=False)


def build(tool, scene, first, change=lambda: None):
    """The costs of the phases of one build."""
    analyzed, run_toml = tool.scratch / "loop.toml", tool.scratch / "run.toml"
    images = ["-analyzed", analyzed, "-run", run_toml]
    costs = {"analyzer": phase(tool, scene, "analyzer", *images, "-run-image", "run", "app")}
    if not first:
        costs["restorer"] = phase(tool, scene, "restorer", *images, *tool.cached(True))
        scene.buildpacks()
    change()
    costs["exporter"] = phase(tool, scene, "exporter", *images, *tool.cached(True), "-app", scene.app, "-launcher", tool.launcher,
                              "-report", tool.scratch / "report.toml", "app")
    return costs


def loop(tool, scene, image):
    """One round: the costs of the phases of each build."""
    tool.forget()
    costs = {}
    with new_file_system(scene.dir, image, 8192 * MIB):
        scene.start()
        for name, change in zip(BUILDS, (None, lambda: None, scene.change_app, scene.change_layer)):
            if change is None:
                costs[name] = build(tool, scene, True)
            else:
                scene.begin_build()
                costs[name] = build(tool, scene, False, change)
        for left in scene.dir.iterdir():
            shutil.rmtree(left)
    return costs


def total(costs):
    """Of several phases, one after another."""
    known = lambda name: [cost[name] for cost in costs if cost[name] is not None]
    return {"wall": sum(known("wall")), "cpu": sum(known("cpu")), "rss": max(known("rss")), "written": sum(known("written"))}


def rows(scene, rounds):
    """For each tool, its rounds; the rows of the table, with the median of each figure."""
    for name in BUILDS:
        phases = list(rounds[0][0][name])
        for phase_name in ("build", *phases):
            def of(found):
                return total(found[name].values()) if phase_name == "build" else found[name][phase_name]
            ours, *theirs = [median([of(found) for found in tool]) for tool in rounds]
            row = {"scene": scene, "build": name, "phase": phase_name, "ours": ours, "theirs": theirs[0] if theirs else None,
                   "ratio": theirs[0]["wall"] / ours["wall"] if theirs else None, "asked": ASKED.get((name, phase_name))}
            yield row


def line(row):
    def pair(name, unit, digits):
        both = (row["ours"], row["theirs"])
        return " / ".join("–" if cost is None else f"{cost[name] / unit:.{digits}f}" for cost in both)
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.1f}"
    return (f"{row['scene']:10}{row['build']:20}{row['phase']:10}{pair('wall', 1, 3):>17}{pair('cpu', 1, 2):>15}"
            f"{pair('rss', MIB, 0):>11}{pair('written', 10**6, 0):>14}{ratio:>8}{row['asked'] or '':>7}")


def scenes(options, dir):
    """Name and what buildpacks made, one at a time."""
    if options.layer:
        yield "own", inputs.of_folders(dir / "own", options.layer, options.app)
        return
    makers = {"large": inputs.large_files, "small": inputs.small_files, "both": inputs.node_app, "packages": inputs.packages}
    for name in options.scene or makers:
        yield name, makers[name](dir / f"made-{name}", options.quick)


def main():
    arguments = parser(__doc__, "12 GB")
    arguments.add_argument("--scene", action="append", choices=("large", "small", "both", "packages"), help="default: all")
    arguments.add_argument("--layer", type=Path, action="append", metavar="DIR", help="a layer of a scene of one's own")
    arguments.add_argument("--app", type=Path, metavar="DIR", help="the app of that scene (default: one file)")
    arguments.add_argument("--run-image", type=Path, metavar="LAYOUT", help="default: one of 100 MB that is made")
    options = arguments.parse_args()
    executables, reference = options.executables.resolve(), os.environ.get("REFERENCE_LIFECYCLE_DIR")
    size = 3 * MIB if options.quick else 100 * 10**6
    result = []
    with tempfile.TemporaryDirectory(prefix="drydock-loop-", dir=options.dir) as dir:
        dir = Path(dir)
        tools = [Tool("ours", executables, executables / "launcher", dir / "ours", size, options.run_image)]
        if reference:
            tools.append(Tool("reference", Path(reference), executables / "launcher", dir / "reference", size, options.run_image))
        where = os.statvfs(dir)
        kind = next((line.split()[2] for line in reversed(Path("/proc/mounts").read_text().splitlines())
                     if str(dir).startswith(line.split()[1])), "?")
        for name, made in scenes(options, dir):
            scene = Scene(dir, name, made)
            rounds = [[] for _ in tools]
            for _ in range(options.rounds):
                for tool, found in zip(tools, rounds):
                    found.append(loop(tool, scene, dir / "file-system"))
            for row in rows(name, rounds):
                result.append(row)
                print(line(row), file=sys.stderr, flush=True)
            for folder in {made.layers.parent, made.app.parent}:
                shutil.rmtree(folder)
    about = {"rounds": options.rounds, "cores": len(os.sched_getaffinity(0)), "file system": kind, "free": where.f_bavail * where.f_frsize}
    if options.json:
        print(json.dumps({"about": about, "rows": result}, indent=1))
        return
    print(f"{'scene':10}{'build':20}{'phase':10}{'wall s':>17}{'CPU s':>15}{'peak MiB':>11}{'written MB':>14}{'ratio':>8}{'asked':>7}   ours / theirs")
    for row in result:
        print(line(row))
    print(f"medians of {about['rounds']} rounds, {about['cores']} cores, {kind}")
    if not reference:
        print("note: REFERENCE_LIFECYCLE_DIR is not set: nothing to compare with")


if __name__ == "__main__":
    main()
