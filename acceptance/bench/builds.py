#!/usr/bin/env python3
"""Measures whole builds by `drydock build`, in turns with what else can make them, and prints a table.

    cargo run -p drydock-package && cargo build --release -p drydock-cli && python3 acceptance/bench/builds.py [--json] [--rounds N] [--quick]

As root. The builder is busybox and one buildpack in shell: the first build copies 602 MB (32,000 files) into a layer that is kept, the next ones leave
it alone. They lie in a new ext4 with a journal, as users have it. `--pack PACK --builder NAME` measures pack as well, for acceptance/clients/pack.sh, which has the docker engine and the builder for it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import inputs
from bench import HERE, in_turns, line, new_file_system, parser, run

USER = 1000
BUILDPACK_TOML = 'api = "0.10"\n[buildpack]\nid = "bench/copy"\nversion = "1"\n[[targets]]\nos = "linux"\n'
BUILD = """#!/bin/sh
set -eu
layer=$CNB_LAYERS_DIR/data
[ -d "$layer" ] || cp -R /data "$layer"
printf '[types]\\nlaunch = true\\ncache = true\\n' >"$layer.toml"
printf '[[processes]]\\ntype = "web"\\ncommand = ["cat", "name"]\\ndefault = true\\n' >"$CNB_LAYERS_DIR/launch.toml"
"""
BUILDER_TOML = """[[buildpacks]]
uri = "buildpack"
[[order]]
[[order.group]]
id = "bench/copy"
version = "1"
[build]
image = "base"
[[run.images]]
image = "base"
[lifecycle]
uri = "{lifecycle}"
"""
# The same phases without a sandbox: in the builder's files, with the same folders, the app's copy too.
BARE = """set -e
root=$1 app=$2 workspace=$3; shift 3
cp -R "$app/." "$workspace"
chown -R %d:%d "$workspace"
for pair in "$@"; do mount --bind "${pair%%=*}" "$root/${pair#*=}"; done
exec chroot "$root" /usr/bin/env -i PATH=/bin CNB_PLATFORM_API=0.14 CNB_USE_OCI_LAYOUT=true CNB_BUILD_LOG=auto CNB_USER_ID=%d CNB_GROUP_ID=%d \
    /cnb/lifecycle/creator -app /workspace -cache-dir /cache bare
""" % (USER, USER, USER, USER)


class Scene:
    """A repository with a base image and a builder, and an app."""

    def __init__(self, options, dir):
        self.options, self.dir = options, dir
        self.repository, self.app, self.data = dir / "repository", dir / "app", dir / "data"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(dir), "CNB_OCI_LAYOUT_PATH": str(self.repository)}
        self.number = 0
        inputs.write(self.app / "name", "first\n")
        for i in range(20 if options.quick else 500):
            inputs.write(self.app / f"src/{i % 10}/{i}.js", inputs.text(i, 8000))

    def own_builder(self):
        build = inputs.node_app(self.dir / "node", self.options.quick)
        self.data.mkdir()
        for layer in build.layer_dirs():
            layer.rename(self.data / layer.name)
        shutil.rmtree(self.dir / "node")
        self.base()
        inputs.write(self.dir / "buildpack/buildpack.toml", BUILDPACK_TOML)
        for name, text in [("detect", "#!/bin/sh\n"), ("build", BUILD)]:
            inputs.write(self.dir / f"buildpack/bin/{name}", text)
            (self.dir / f"buildpack/bin/{name}").chmod(0o755)
        archive = next(self.options.executables.parent.glob("lifecycle-*.tgz"))
        inputs.write(self.dir / "builder.toml", BUILDER_TOML.format(lifecycle=archive))
        self.drydock("builder", "create", "builder", "--config", self.dir / "builder.toml")
        self.flags = ["--builder", "builder", "--volume", f"{self.data}:/data:ro", "--network", "none"]

    def base(self):
        root, layout = self.dir / "root", self.dir / "base"
        for path in ["bin", "etc", "tmp", "usr/bin"]:
            (root / path).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy2(shutil.which("busybox"), root / "bin/busybox")
        for name in ["bin/cat", "bin/cp", "bin/sh", "usr/bin/env"]:
            (root / name).symlink_to("/bin/busybox")
        inputs.write(root / "etc/passwd", f"root:x:0:0:root:/root:/bin/sh\ncnb:x:{USER}:{USER}:cnb:/tmp:/bin/sh\n")
        image = f"{layout}:base"
        distro = "--config.label=io.buildpacks.base.distro."
        for command in [["init", "--layout", layout], ["new", "--image", image], ["insert", "--image", image, root, "/"],
                        ["config", "--image", image, "--config.user", f"{USER}:{USER}", f"--config.env=CNB_USER_ID={USER}",
                         f"--config.env=CNB_GROUP_ID={USER}", "--config.env=PATH=/bin", f"{distro}name=tiny", f"{distro}version=1"]]:
            subprocess.run(["umoci", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
        self.drydock("import", f"oci:{layout}:base", "base")

    def drydock(self, *arguments):
        return run([self.options.drydock, *arguments], self.env)

    def build(self, name, *flags):
        return self.drydock("build", name, "--path", self.app, "--lifecycle", self.options.executables, *self.flags, *flags)

    def new_name(self):
        self.number += 1
        return f"app{self.number}"

    def edit(self):
        """One file of the app becomes another."""
        self.number += 1
        (self.app / "name").write_text(f"{self.number}\n")


def rows(options, dir):
    scene, found = Scene(options, dir), []

    def against(work, rival, asked, ours, theirs):
        costs = in_turns(options.rounds, ours, theirs)
        found.append({"work": work, "rival": rival, "ours": costs[0], "theirs": costs[1], "ratio": costs[1]["wall"] / costs[0]["wall"], "asked": asked})
        print(line(found[-1]), file=sys.stderr, flush=True)

    if options.pack:
        against_pack(scene, against)
        return found
    scene.own_builder()
    for trust in [[], ["--trust-builder"]]:
        # Two apps: what was just extracted is looked at more closely by the next build.
        name, other = f"kept{len(trust)}", f"anew{len(trust)}"
        for app in [name, name, other]:
            scene.build(app, *trust)

        def anew():
            # Not removed: ext4 is slow to make files where as many were removed in the last seconds.
            for kept in (dir / ".cache/drydock/builds").glob(f"{other}-*/kept"):
                kept.rename(Path(tempfile.mkdtemp(dir=dir)) / "kept")
            return scene.build(other, *trust)

        against(f"nothing changed, {'trusted' if trust else 'untrusted'}", "layers extracted", 1, lambda: scene.build(name, *trust), anew)
    against_bare(scene, against)
    return found


def against_bare(scene, against):
    """The creator in a sandbox, and the creator by itself, on the app without the large layer: the difference is what sandboxes cost."""
    root = scene.dir / "bare"
    scene.drydock("export", "builder", f"dir:{root}")
    pairs = []
    for name in ["layers", "workspace", "cache", "layout-repo", "proc", "dev", "data"]:
        (root / name).mkdir(exist_ok=True)
    small = scene.dir / "small"
    inputs.write(small / "file", "small\n")
    for name in ["layers", "workspace", "cache"]:
        (scene.dir / f"bare-{name}").mkdir()
        pairs.append(f"{scene.dir / f'bare-{name}'}={name}")
    pairs += [f"{scene.repository}=layout-repo", f"{small}=data", "/proc=proc", "/dev=dev"]
    scene.flags = ["--builder", "builder", "--volume", f"{small}:/data:ro", "--network", "none", "--trust-builder"]

    def bare():
        for name in ["layers", "workspace"]:
            (scene.dir / f"bare-{name}").rename(Path(tempfile.mkdtemp(dir=scene.dir)) / name)
            (scene.dir / f"bare-{name}").mkdir()
        for name in ["layers", "cache"]:
            subprocess.run(["chown", "-R", f"{USER}:{USER}", scene.dir / f"bare-{name}"], check=True)
        return run(["unshare", "--mount", "sh", "-c", BARE, "bare", root, scene.app, scene.dir / "bare-workspace", *pairs], {"PATH": os.environ["PATH"]})

    scene.build("sandboxed")
    bare()
    against("nothing changed, small layer", "creator by itself", 0.5, lambda: scene.build("sandboxed"), bare)


def against_pack(scene, against):
    options = scene.options
    scene.repository, scene.flags = Path(os.environ["CNB_OCI_LAYOUT_PATH"]), ["--builder", options.builder, "--network", "none"]
    scene.env |= {"CNB_OCI_LAYOUT_PATH": str(scene.repository)}
    env = {name: os.environ[name] for name in ["PATH", "DOCKER_HOST", "DOCKER_CONFIG"]} | {"HOME": str(scene.dir), "PACK_HOME": str(scene.dir / "pack")}
    subprocess.run([options.pack, "config", "experimental", "true"], check=True, env=env, stdout=subprocess.DEVNULL)

    def pack(name, trust):
        return run([options.pack, "build", f"oci:{name}", "--builder", options.builder, "--path", scene.app, "--network", "host", *trust], env)

    for trust, flags in [("trusted", ["--trust-builder"]), ("untrusted", [])]:
        theirs = flags or ["--lifecycle-image", options.lifecycle_image]
        against(f"first build, {trust}", "pack, docker", 1, lambda: scene.build(scene.new_name(), *flags), lambda: pack(scene.new_name(), theirs))
        scene.build(trust, *flags)
        pack(trust, theirs)
        against(f"nothing changed, {trust}", "pack, docker", 5, lambda: scene.build(trust, *flags), lambda: pack(trust, theirs))

        def changed(build):
            scene.edit()
            return build()

        against(f"one file changed, {trust}", "pack, docker", 1, lambda: changed(lambda: scene.build(trust, *flags)),
                lambda: changed(lambda: pack(trust, theirs)))


def main():
    arguments = parser(__doc__, "6 GB")
    arguments.add_argument("--drydock", type=Path, default=HERE.parents[1] / "target/release/drydock", help="default: target/release/drydock")
    arguments.add_argument("--pack", type=Path, help="a pack executable: only the rows with pack, by a docker engine that runs")
    arguments.add_argument("--builder", help="with --pack: a builder that docker and the layout repository have")
    arguments.add_argument("--lifecycle-image", help="with --pack: for builders that are not trusted")
    options = arguments.parse_args()
    options.executables, options.drydock = options.executables.resolve(), options.drydock.resolve()
    with tempfile.TemporaryDirectory(prefix="drydock-builds-", dir=options.dir) as dir:
        os.chmod(dir, 0o755)
        if options.pack:
            # Docker has its own place, and both are to have the same file system.
            os.chdir(dir)
            found = rows(options, Path(dir))
        else:
            scene = Path(dir) / "scene"
            scene.mkdir()
            with new_file_system(scene, Path(dir) / "file-system", 16 << 30):
                scene.chmod(0o755)
                os.chdir(scene)
                found = rows(options, scene)
                os.chdir("/")
    print(json.dumps(found, indent=1) if options.json else "\n".join(map(line, found)))


if __name__ == "__main__":
    main()
