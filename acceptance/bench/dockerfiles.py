#!/usr/bin/env python3
"""Measures builds of a Dockerfile in turns with `buildah build --layers`, and the extender's layers against walking and hashing everything.

    cargo run -p drydock-package && cargo build --release -p drydock-cli && python3 acceptance/bench/dockerfiles.py [--json] [--rounds N] [--quick]

As root. The Dockerfile is that of every Node.js tutorial, on a Debian with this machine's Node.js; packages come from a cache in the base image, so that no
network is measured. The extender runs `RUN touch /new` in a file system of 100,000 files; its rival does what kaniko does before and after a RUN, with
the fastest programs for it: every file is looked at and hashed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import inputs
from bench import HERE, in_turns, line, parser, run

sys.path.append(str(HERE.parent / "clients"))
import bases  # noqa: E402
import containers  # noqa: E402
import images  # noqa: E402

PACKAGES = {"express": "4.19.2", "lodash": "4.17.21", "date-fns": "4.1.0", "typescript": "5.6.3"}
FEW = {"ms": "2.1.3"}
DOCKERFILE = """FROM base
WORKDIR /usr/src/app{number}
COPY package*.json ./
RUN npm install --offline --cache /npm --omit=dev --no-audit --no-fund --no-update-notifier
COPY . .
EXPOSE 8080
CMD ["node", "server.js"]
"""
EXTENSION = "ARG base_image\nFROM ${base_image}\nRUN touch /new\n"
ANALYZED = '[run-image]\nreference = "registry.example/base@{0}"\nimage = "registry.example/base"\nextend = true\n'
GROUP = '[[group]]\nid = "a"\nversion = "1"\napi = "0.10"\n[[group-extensions]]\nid = "a"\nversion = "1"\napi = "0.10"\n'
# Facts and contents of every file, before and after.
HASHING = """set -e
for when in before after; do
    find "$1" -xdev -printf '%p %i %C@ %s %m %U %G %l\\n' >"$2/$when"
    find "$1" -xdev -type f -print0 | xargs -0 -n 1000 -P "$(nproc)" md5sum >>"$2/$when"
done
"""


class Scene:
    """A base image that both know, and a context."""

    def __init__(self, options, dir):
        self.options, self.dir, self.number = options, dir, 0
        self.context, self.repository = dir / "context", dir / "layout-repo"
        self.repository.mkdir()
        self.env = {"PATH": os.environ["PATH"], "HOME": str(dir), "CNB_OCI_LAYOUT_PATH": str(self.repository), "TMPDIR": str(dir)}
        self.storage = ["--root", dir / "storage", "--runroot", dir / "state", "--storage-driver", "overlay"]
        packages = FEW if options.quick else PACKAGES
        inputs.write(self.context / "package.json", json.dumps({"name": "app", "version": "1.0.0", "dependencies": packages}))
        inputs.write(self.context / "server.js", "first\n")
        for i in range(20 if options.quick else 500):
            inputs.write(self.context / f"src/{i % 10}/{i}.js", inputs.text(i, 8000))
        layout = self.base(packages)
        self.must(options.drydock, "import", f"oci:{layout}:latest", "base")
        self.must("skopeo", "copy", "--quiet", f"oci:{layout}:latest",
                  f"containers-storage:[overlay@{dir}/storage+{dir}/state]localhost/base:latest")
        self.rename()

    def must(self, *command):
        subprocess.run(list(map(str, command)), env=self.env, check=True, stdout=subprocess.DEVNULL)

    def base(self, packages):
        """Debian with Node.js, and what npm downloads for the packages."""
        root, layout = self.dir / "root", self.dir / "base"
        root.mkdir()
        config = bases.node(root)
        with tempfile.TemporaryDirectory() as app:
            shutil.copy(self.context / "package.json", app)
            subprocess.run(["npm", "install", "--cache", root / "npm", "--no-audit", "--no-fund"], cwd=app, check=True, stdout=subprocess.DEVNULL)
        images.write_layout(layout, "base", root, config)
        subprocess.run(["rm", "-rf", root], check=True)
        return layout

    def rename(self):
        """The app goes elsewhere: no step is known."""
        self.number += 1
        inputs.write(self.context / "Dockerfile", DOCKERFILE.format(number=self.number))

    def edit(self):
        self.number += 1
        inputs.write(self.context / "server.js", f"{self.number}\n")

    def ours(self, change=lambda: None):
        change()
        return run([self.options.drydock, "import", "--network", "none", f"dockerfile:{self.context}", "app"], self.env)

    def theirs(self, change=lambda: None):
        change()
        return run(["buildah", *self.storage, "build", "--layers", "--pull=never", "--runtime", "runc", "--network", "none",
                    "--tag", "localhost/app", self.context], self.env)


def against(found, options, work, rival, asked, ours, theirs):
    costs = in_turns(options.rounds, ours, theirs)
    found.append({"work": work, "rival": rival, "ours": costs[0], "theirs": costs[1], "ratio": costs[1]["wall"] / costs[0]["wall"], "asked": asked})
    print(line(found[-1]), file=sys.stderr, flush=True)


def builds(found, options, dir):
    scene = Scene(options, dir)
    for work, change in [("first build", scene.rename), ("everything cached", lambda: None), ("one file changed", scene.edit)]:
        against(found, options, work, "buildah --layers", 1, lambda: scene.ours(change), lambda: scene.theirs(change))


def snapshots(found, options, dir):
    """The extender in a container, against what hashes all of it."""
    root, layout, place = dir / "root", dir / "base", dir / "place"
    root.mkdir(parents=True)
    config = bases.busybox(root)
    (root / "usr/bin/env").symlink_to("/bin/busybox")
    for i in range(1000 if options.quick else 100_000):
        inputs.write(root / f"usr/share/{i % 100}/{i // 100 % 10}/{i}", inputs.text(i % 1000, 500 + i % 97 * 160))
    # The extender reads nothing of it but its configuration.
    (dir / "empty").mkdir()
    images.write_layout(layout, "base", dir / "empty", config)
    digest = images.write_sparse(layout, place / "kaniko/cache/base")
    inputs.write(place / "layers/analyzed.toml", ANALYZED.format(digest))
    inputs.write(place / "layers/group.toml", GROUP)
    inputs.write(place / "layers/generated/a/run.Dockerfile", EXTENSION)
    (place / "workspace").mkdir()
    volumes = {place / "layers": "/layers", place / "kaniko": "/kaniko", place / "workspace": "/workspace", options.executables: "/cnb/lifecycle"}
    command = ["/cnb/lifecycle/extender", "-kind", "run"]

    def extend():
        shutil.rmtree(place / "kaniko/cache/layers", ignore_errors=True)
        return run(containers.words(root, tempfile.mkdtemp(dir=dir), volumes, {"PATH": "/bin", "CNB_PLATFORM_API": "0.14"}, command), reads=[root])

    def hash_all():
        return run(["bash", "-c", HASHING, "hash", root, tempfile.mkdtemp(dir=dir)], reads=[root])

    against(found, options, "a RUN in 100,000 files", "walk and hash twice", 1, extend, hash_all)


def main():
    arguments = parser(__doc__, "6 GB")
    arguments.add_argument("--drydock", type=Path, default=HERE.parents[1] / "target/release/drydock", help="default: target/release/drydock")
    options = arguments.parse_args()
    options.executables, options.drydock = options.executables.resolve(), options.drydock.resolve()
    if os.geteuid():
        sys.exit("error: base images have files of several owners: run this as root")
    found = []
    for measure in [builds, snapshots]:
        with tempfile.TemporaryDirectory(prefix="drydock-dockerfiles-", dir=options.dir) as dir:
            os.chmod(dir, 0o755)
            measure(found, options, Path(dir))
    print(json.dumps(found, indent=1) if options.json else "\n".join(map(line, found)))


if __name__ == "__main__":
    main()
