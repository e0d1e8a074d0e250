#!/usr/bin/env python3
"""Measures the executables against rivals that do the same work, in turns, and prints a table.

    cargo run -p drydock-package && python3 acceptance/bench/bench.py [--json] [--rounds N] [--quick] [--plot FILE]

Rivals are shell pipelines (GNU tar, sha256sum, pigz) and, if REFERENCE_LIFECYCLE_DIR names a folder with its
executables, the Go lifecycle. Before each run, all files that it reads are read once, since a machine may take back what is idle
in its page cache, and the disk has nothing left to write (`sync`).
"""

import argparse
import contextlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import inputs
import plot
from inputs import BUILDPACK, MIB, RUN_IMAGE
from measure import median

HERE = Path(__file__).resolve().parent
APP_IMAGE = "index.docker.io/library/app/latest"

# One pass for each layer as it can be had from a shell. Pipes are named so that the shell waits for every process.
EXPORT = r"""
set -e -o pipefail
out=$1 run=$2; shift 2
mkfifo "$out/tar" "$out/gzip"
for dir in "$@"; do
    name=$(basename "$dir")
    sha256sum <"$out/tar" >"$out/$name.diff_id" & sha256sum <"$out/gzip" >"$out/$name.digest" &
    tar --sort=name -cf - -C / "${dir#/}" | tee "$out/tar" | pigz -1 | tee "$out/gzip" >"$out/$name.blob"
    wait
done
[ -z "$run" ] || cp -r "$run" "$out/base"
"""

RESTORE = r"""
set -e
for tar in "$@"; do
    echo "$(basename "$tar" .tar | sed s/sha256://)  $tar" | sha256sum --check --quiet
    tar -xPf "$tar"
done
"""


class Tool:
    """A lifecycle's executables, with a layout repository and a cache of its own."""

    def __init__(self, name, executables, launcher, dir, run_image_size, run_image=None):
        self.name, self.executables, self.launcher = name, executables, launcher
        self.repository, self.cache, self.scratch = dir / "layouts", dir / "cache", dir / "scratch"
        self.cache.mkdir(parents=True)
        self.scratch.mkdir()
        self.run, digest, arch = inputs.run_image(self.repository, run_image_size, run_image)
        inputs.write(self.scratch / "fresh.toml", f'[run-image]\nreference = "{self.run}@{digest}"\nimage = "{self.run}"\n'
                     f'[run-image.target]\nos = "linux"\narch = "{arch}"\n')
        inputs.write(self.scratch / "run.toml", '[[images]]\nimage = "run"\n')
        self.app = self.repository / APP_IMAGE
        self.env = {"PATH": os.environ["PATH"], "CNB_PLATFORM_API": "0.14", "CNB_EXPERIMENTAL_MODE": "quiet",
                    "CNB_USE_LAYOUT": "true", "CNB_LAYOUT_DIR": str(self.repository),
                    "CNB_USER_ID": str(os.getuid()), "CNB_GROUP_ID": str(os.getgid())}

    def command(self, phase, build, *arguments):
        return [self.executables / phase, "-layers", build.layers, *arguments]

    def cached(self, cache):
        return ["-cache-dir", self.cache] if cache else []

    def export(self, build, cache=False, analyzed="fresh.toml", prefix=()):
        shutil.copy(self.scratch / analyzed, self.scratch / "used.toml")
        command = self.command("exporter", build, "-app", build.app, "-launcher", self.launcher, *self.cached(cache),
                               "-analyzed", self.scratch / "used.toml", "-run", self.scratch / "run.toml",
                               "-report", self.scratch / "report.toml", "app")
        return run([*prefix, *command], self.env, reads=[*build.folders(), self.repository, self.cache])

    def forget(self):
        """Removes what an export has made."""
        shutil.rmtree(self.app, ignore_errors=True)
        shutil.rmtree(self.cache)
        self.cache.mkdir()

    def first_export(self, build, cache=False, prefix=()):
        self.forget()
        return self.export(build, cache, prefix=prefix)

    def analyze(self, build):
        """Notes what the last export has made as the previous image."""
        run(self.command("analyzer", build, "-analyzed", self.scratch / "again.toml", "-run", self.scratch / "run.toml",
                         "-run-image", "run", "app"), self.env)

    def export_again(self, build, cache=False):
        return self.export(build, cache, "again.toml")

    def restore(self, build):
        shutil.copy(self.scratch / "again.toml", self.scratch / "used.toml")
        return run(self.command("restorer", build, *self.cached(True), "-analyzed", self.scratch / "used.toml",
                                "-run", self.scratch / "run.toml"), self.env, reads=[self.repository, self.cache])


def run(command, env=None, reads=(), sync=True):
    """Measures a command, which reads these files and folders, with a process of its own, because a child's peak memory counts
    from its parent's. Without `sync`, the disk may still be writing what was there before."""
    if sync:
        os.sync()
    fetch_memory()
    if reads:
        subprocess.run(["bash", "-c", 'find "$@" -type f -print0 | xargs -0 -r cat >/dev/null', "read", *reads], check=True)
    command = [sys.executable, "-I", "-S", HERE / "measure.py", *command]
    measured = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    if measured.returncode != 0:
        sys.exit(f"error: {measured.stderr}")
    return json.loads(measured.stdout)


def fetch_memory():
    """The host of a virtual machine takes back memory that is idle, and takes long to give it again: up to 3 s for a gigabyte. So it is fetched
    before each work."""
    mmap.mmap(-1, 2048 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def shell_export(dir, build, run_image):
    out = Path(tempfile.mkdtemp(dir=dir))
    cost = run(["bash", "-c", EXPORT, "export", out, run_image or "", *build.layer_dirs(), build.app],
               reads=[*build.folders(), *filter(None, [run_image])])
    shutil.rmtree(out)
    return cost


@contextlib.contextmanager
def new_file_system(at, image, size):
    """Mounts a new ext4 at a folder, kept in the file `image`: ext4 is slow to make files where as many were removed in the last minutes.
    Gives whether it could be mounted; otherwise the folder is just a folder."""
    with open(image, "wb") as file:
        file.truncate(size)
    made = os.getuid() == 0 and all(
        subprocess.run(command, capture_output=True).returncode == 0
        for command in (["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image], ["mount", "-o", "loop,noinit_itable", image, at]))
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", at], check=True)
        image.unlink()


class EmptyLayers:
    """The layers folder of a build, emptied for a restore, in a file system made for each run."""

    def __init__(self, dir, build, size):
        self.build, self.aside, self.image = build, dir / "layers-aside", dir / "file-system"
        self.size = size
        with self.empty():
            pass

    @contextlib.contextmanager
    def empty(self):
        layers = self.build.layers
        layers.rename(self.aside)
        layers.mkdir()
        try:
            with new_file_system(layers, self.image, self.size) as self.is_mounted:
                shutil.copy(self.aside / "group.toml", layers)
                (layers / BUILDPACK).mkdir()
                yield
                restored, had = (sum(len(files) for _, _, files in os.walk(tree / BUILDPACK / layer.name))
                                 for tree in (layers, self.aside) for layer in [(self.aside / BUILDPACK / "node_modules")])
                self.is_whole = restored == had
        finally:
            shutil.rmtree(layers)
            self.aside.rename(layers)

    def restore(self, restore):
        with self.empty():
            cost = restore()
        if not self.is_whole:
            sys.exit("error: a restore did not bring every file back")
        return cost


def in_turns(rounds, *works):
    """Median costs of each work; they take turns."""
    costs = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, costs):
            found.append(work())
    return [median(found) for found in costs]


class Bench:
    def __init__(self, options, dir):
        self.options, self.dir, self.rows, self.notes = options, dir, [], []
        quick = options.quick
        size = 3 * MIB if quick else 100 * 10**6
        launcher = options.executables / "launcher"
        self.ours = Tool("ours", options.executables, launcher, dir / "ours", size)
        reference = os.environ.get("REFERENCE_LIFECYCLE_DIR")
        self.reference = Tool("reference", Path(reference), launcher, dir / "reference", size) if reference else None
        if not reference:
            self.notes.append("REFERENCE_LIFECYCLE_DIR is not set: no row with the Go lifecycle")

    def row(self, work, rival, asked, ours, theirs):
        ratio = theirs["wall"] / ours["wall"]
        self.rows.append({"work": work, "rival": rival, "ours": ours, "theirs": theirs, "ratio": ratio, "asked": asked})
        print(line(self.rows[-1]), file=sys.stderr, flush=True)

    def against(self, work, rival, asked, ours, theirs):
        self.row(work, rival, asked, *in_turns(self.options.rounds, ours, theirs))

    def all(self):
        build = inputs.node_app(self.dir / "node", self.options.quick)
        self.first(build)
        self.base_image(build)
        self.nothing_changed(build)
        self.restores(build)
        self.extremes(build)
        if self.options.plot:
            self.options.plot.write_text(plot.svg(self.scaling()))

    def first(self, build):
        ours, reference = self.ours, self.reference
        self.against("first export", "shell pipeline", 2, lambda: ours.first_export(build),
                     lambda: shell_export(self.dir, build, ours.run))
        if reference:
            for work, cache in (("first export", False), ("first export, -cache-dir", True)):
                self.against(work, "reference", 10, lambda: ours.first_export(build, cache),
                             lambda: reference.first_export(build, cache))

    def nothing_changed(self, build):
        """Leaves image, cache and analysis for the restores."""
        ours, reference = self.ours, self.reference
        first = in_turns(self.options.rounds, lambda: ours.first_export(build, True))[0]
        for tool in filter(None, (ours, reference)):
            tool.first_export(build, True)
            tool.analyze(build)
        again = [lambda: ours.export_again(build, True)]
        again += [lambda: reference.export_again(build, True)] if reference else []
        costs = in_turns(self.options.rounds, *again)
        self.row("nothing changed, -cache-dir", "our first export", 2.5, costs[0], first)
        if reference:
            self.row("nothing changed, -cache-dir", "reference", 20, *costs)

    def restores(self, build):
        layers = EmptyLayers(self.dir, build, 256 * MIB if self.options.quick else 4096 * MIB)
        if not layers.is_mounted:
            self.notes.append("restore: into fresh folders, because no file system can be mounted here")
        tars = sorted((self.ours.cache / "committed").glob("*.tar"))
        gnu = lambda: run(["bash", "-c", RESTORE, "restore", *tars], reads=tars)
        self.against("restore", "sha256sum, tar -x", 1.5, lambda: layers.restore(lambda: self.ours.restore(build)),
                     lambda: layers.restore(gnu))
        if self.reference:
            self.against("restore", "reference", 2, lambda: layers.restore(lambda: self.ours.restore(build)),
                         lambda: layers.restore(lambda: self.reference.restore(build)))

    def base_image(self, build):
        """Bytes that the run image's blobs take anew in the app image's layout; a reflink counts in full here."""
        self.ours.first_export(build)
        def new_bytes(blobs):
            return sum(blob.stat().st_blocks * 512 for blob in blobs if blob.exists())
        base = list((self.ours.run / "blobs/sha256").iterdir())
        layers = [blob for blob in base if blob.stat().st_size > 10_000]
        shared = {blob.stat().st_ino for blob in layers}
        in_app = [self.ours.app / "blobs/sha256" / blob.name for blob in layers]
        ours = new_bytes(blob for blob in in_app if blob.stat().st_ino not in shared)
        copy = Path(tempfile.mkdtemp(dir=self.dir))
        subprocess.run(["cp", *layers, copy], check=True)
        os.sync()
        self.base = {"work": "bytes newly allocated by base layers", "rival": "cp", "asked": 0, "ours": ours,
                     "theirs": new_bytes(copy.iterdir())}
        shutil.rmtree(copy)

    def extremes(self, node):
        quick = self.options.quick
        big = inputs.one_file(self.dir / "big", 8 * MIB if quick else 2 * 10**9, node)
        many = inputs.many_files(self.dir / "many", 2000 if quick else 200_000, 0)
        for work, build in (("a layer of 2 GB in one file", big), ("a layer of 200,000 empty files", many)):
            self.against(work, "shell pipeline", 2, lambda: self.ours.first_export(build),
                         lambda: shell_export(self.dir, build, self.ours.run))
            shutil.rmtree(build.layers)

    def scaling(self):
        quick, rounds = self.options.quick, min(self.options.rounds, 3)
        cpus = sorted(os.sched_getaffinity(0))
        threads = {f"{n} thread{'s' * (n > 1)}": ["taskset", "-c", ",".join(map(str, cpus[:n]))]
                   for n in (1, 2) if n <= len(cpus)}
        panels = []
        for title, x_name, sizes, make in (
            ("Layers of 64 MiB", "layers", (1, 2) if quick else (1, 2, 4, 8),
             lambda dir, n: inputs.many_layers(dir, n, (1 if quick else 64) * MIB)),
            ("Files of 1 kB in one layer", "files", (100, 1000) if quick else (100, 1000, 10_000, 100_000),
             lambda dir, n: inputs.many_files(dir, n, 1000)),
        ):
            lines = {name: [] for name in threads}
            for n in sizes:
                build = make(self.dir / f"{x_name}-{n}", n)
                for name, prefix in threads.items():
                    cost = in_turns(rounds, lambda: self.ours.first_export(build, prefix=prefix))[0]
                    lines[name].append((n, cost["wall"]))
                shutil.rmtree(self.dir / f"{x_name}-{n}")
            panels.append((f"First export: {title}", x_name, lines))
        return panels

    def result(self):
        return {"rounds": self.options.rounds, "quick": self.options.quick, "rows": self.rows, "base": self.base,
                "notes": self.notes}


def line(row):
    """A row of the table."""
    def pair(name, unit, digits):
        both = (row[who][name] for who in ("ours", "theirs"))
        return " / ".join("–" if value is None else f"{value / unit:.{digits}f}" for value in both)
    return (f"{row['work']:32}{row['rival']:20}{pair('wall', 1, 2):>15}{pair('cpu', 1, 2):>15}{pair('rss', MIB, 0):>13}"
            f"{pair('written', 10**6, 0):>15}{row['ratio']:>8.2f}{row['asked']:>7}")


def table(result):
    head = f"{'work':32}{'rival':20}{'wall s':>15}{'CPU s':>15}{'peak MiB':>13}{'written MB':>15}{'ratio':>8}{'asked':>7}"
    print(head, "ours / theirs".center(len(head)), sep="\n")
    for row in result["rows"]:
        print(line(row))
    base = result["base"]
    print(f"{base['work']}: {base['ours']}, {base['rival']}: {base['theirs']}; asked: {base['asked']}")
    for note in result["notes"]:
        print("note:", note)


def parser(about, room):
    """What every script takes; `room`: what it needs on the disk."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--rounds", type=int, default=5, help="how often each work is done; the median counts (default: 5)")
    parser.add_argument("--quick", action="store_true", help="small inputs, to try the script itself")
    parser.add_argument("--executables", type=Path, default=HERE.parents[1] / "target/dist",
                        help="default: those that ship, in target/dist")
    parser.add_argument("--dir", type=Path, help=f"where a temporary folder for inputs and outputs is made; needs {room}")
    return parser


def main():
    arguments = parser(__doc__, "12 GB")
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="measure scaling too, and write the plot (SVG) here")
    options = arguments.parse_args()
    options.executables = options.executables.resolve()
    with tempfile.TemporaryDirectory(prefix="drydock-bench-", dir=options.dir) as dir:
        bench = Bench(options, Path(dir))
        bench.all()
        result = bench.result()
    print(json.dumps(result, indent=1)) if options.json else table(result)


if __name__ == "__main__":
    main()
