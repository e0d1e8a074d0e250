#!/usr/bin/env python3
"""Builds apps with buildpacks that nobody here wrote, by `drydock build` and by the Go lifecycle's creator: the same diff IDs and settings must come out.

    cargo run -p drydock-package && cargo build --release -p drydock-cli
    python3 acceptance/clients/buildpacks.py --reference DIR [--from URL] [--work DIR]

As root. README.md beside this file tells more.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST, DRYDOCK = ROOT / "target/dist", ROOT / "target/release/drydock"
USER = 1000

# Repository, commit, and what makes its executables: file in bin -> command.
GO = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o"]
SOURCES = {
    "buildpacks/samples": ("ff523267214af1a078afbcd6ed82fd55d56baba3", {}),
    "paketo-buildpacks/procfile": ("b66aeb4728b300a1c4c953e50f38cd7d0da38ecf", {"main": "./cmd/main"}),
    "paketo-buildpacks/environment-variables": ("004cff0b8b7e45bb5daf8255424c43781df9f2bf", {"main": "./cmd/main"}),
    "paketo-buildpacks/npm-install": (
        "676d359c52950e71523479148804af32852b6450", {"main": "./run", "setup-symlinks": "./cmd/setup-symlinks"}),
    "paketo-buildpacks/npm-start": ("fa096f90fa28c37177041a51eede17ac37f4ce26", {"main": "./run"}),
    "heroku/buildpacks-procfile": ("bb54a142bcd315d98ec45935455ce83d09360aaf", {"main": "procfile-buildpack"}),
}
HELLO = "buildpacks/samples/buildpacks/hello-"

# Puts this machine's Node.js where Paketo's buildpacks look for one: theirs is fetched from a host of its own.
NODE = {
    "buildpack.toml": 'api = "0.10"\n[buildpack]\nid = "drydock/node"\nversion = "1.0.0"\n[[targets]]\nos = "linux"\n',
    "bin/detect": """#!/bin/sh
printf '[[provides]]\\nname = "node"\\n[[provides]]\\nname = "npm"\\n' >"$CNB_BUILD_PLAN_PATH"
""",
    "bin/build": """#!/bin/sh
set -eu
layer=$CNB_LAYERS_DIR/node
rm -rf "$layer"
mkdir -p "$layer/bin"
cp -a "$CNB_BUILDPACK_DIR/node/." "$layer/"
printf '[types]\\nlaunch = true\\nbuild = true\\ncache = true\\n' >"$layer.toml"
""",
}

# Name: buildpacks in their order, files of the app, flags of the build, process, what it prints.
APPS = {
    "hello": ([HELLO + "world", HELLO + "moon", HELLO + "processes"], {"name": "hello\n"}, [], "sys-info", "env vars:"),
    "procfile": (
        ["paketo-buildpacks/procfile", "paketo-buildpacks/environment-variables"],
        {"Procfile": 'web: echo "$GREETING from $PWD"\n'}, ["BPE_GREETING=Good morning"], "web", "Good morning from /workspace"),
    "heroku": (
        ["heroku/buildpacks-procfile"], {"Procfile": "web: cat name\nworker: echo working\n", "name": "a small app\n"}, [],
        "worker", "working"),
    "npm": (
        ["drydock/node", "paketo-buildpacks/npm-install", "paketo-buildpacks/npm-start"],
        {".npmrc": "cafile=/etc/ssl/certs/ca-certificates.crt\n",
         "package.json": json.dumps({"name": "app", "version": "1.0.0", "scripts": {"start": "node main.js"}, "dependencies": {"luxon": "3.5.0"}}),
         "main.js": "console.log(require('luxon').DateTime.fromISO('2024-02-29').toFormat('cccc'));\n"}, [], "web", "Thursday"),
}


def run(*command, **options):
    """Runs a command; gives what it prints. If it fails, so does this program, and prints it."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        sys.exit(f"{done.stdout}\nerror: exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755 if path.parent.name == "bin" else 0o644)


def fetch(base, work):
    """All sources at their commits, with executables in `bin`."""
    for name, (commit, programs) in SOURCES.items():
        dir = work / "sources" / name
        if (dir / "bin").is_dir() or (dir / "buildpacks").is_dir():
            continue
        shutil.rmtree(dir, ignore_errors=True)
        run("git", "clone", "--quiet", "--no-checkout", f"{base}/{name}", dir)
        paths = [".", ":!integration"] if programs else ["."]
        run("git", "-C", dir, "checkout", "--quiet", commit, "--", *paths)
        for program, what in programs.items():
            made = dir / "made" / program
            if (dir / "go.mod").is_file():
                run(*GO, made, what, cwd=dir, env={**os.environ, "CGO_ENABLED": "0"})
            else:
                target = "x86_64-unknown-linux-gnu"
                run("cargo", "build", "--quiet", "--release", "--locked", "--ignore-rust-version", "--target", target, cwd=dir,
                    env={**os.environ, "RUSTFLAGS": "-C target-feature=+crt-static"})
                made.parent.mkdir()
                shutil.copy2(dir / "target" / target / "release" / what, made)
        if programs:
            toml = dir / "buildpack.toml"
            text = toml.read_text().replace("{{.version}}", "1.0.0")
            toml.write_text(text if "\nversion" in text or "  version" in text else text.replace("[buildpack]\n", '[buildpack]\n  version = "1.0.0"\n', 1))
            for phase in ["build", "detect"]:
                (dir / "made" / phase).symlink_to("main")
            (dir / "made").rename(dir / "bin")


def buildpacks(work):
    """Folders with nothing but what a buildpack is; by name."""
    made = {}
    for name in sorted({name for buildpacks, *_ in APPS.values() for name in buildpacks}):
        dir = made[name] = work / "buildpacks" / name
        shutil.rmtree(dir, ignore_errors=True)
        if name == "drydock/node":
            for path, text in NODE.items():
                write(dir / path, text)
            node = Path(shutil.which("node") or sys.exit("error: node is missing: apt-get install nodejs npm")).resolve()
            npm = Path(shutil.which("npm")).resolve().parents[1]
            (dir / "node/bin").mkdir(parents=True)
            shutil.copy2(node, dir / "node/bin/node")
            shutil.copytree(npm, dir / "node/lib/node_modules/npm", symlinks=True)
            (dir / "node/bin/npm").symlink_to("../lib/node_modules/npm/bin/npm-cli.js")
        else:
            dir.mkdir(parents=True)
            for part in ["bin", "buildpack.toml"]:
                run("cp", "-a", work / "sources" / name / part, dir)
    return made


def base(work):
    """The build and run image: Debian, as a layout."""
    root, layout = work / "debian", work / "debian-layout"
    if not (layout / "index.json").is_file():
        for dir in [root, layout]:
            shutil.rmtree(dir, ignore_errors=True)
        run("debootstrap", "--variant=minbase", "--include=ca-certificates,libatomic1,libstdc++6", "bookworm", root)
        run("chroot", root, "useradd", "--uid", USER, "--create-home", "cnb")
        # Whatever stands between this machine and the registries is trusted there, too.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs")
        run("umoci", "init", "--layout", layout)
        run("umoci", "new", "--image", f"{layout}:base")
        run("umoci", "insert", "--image", f"{layout}:base", root, "/")
        label = "--config.label=io.buildpacks.base.distro."
        run("umoci", "config", "--image", f"{layout}:base", "--config.user", f"{USER}:{USER}", f"--config.env=CNB_USER_ID={USER}",
            f"--config.env=CNB_GROUP_ID={USER}", "--config.env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            f"{label}name=debian", f"{label}version=12")
    return layout


def identity(toml):
    """ID and version, of a buildpack.toml."""
    import tomllib
    buildpack = tomllib.loads(toml.read_text())["buildpack"]
    return buildpack["id"], buildpack["version"]


def config(repository, name):
    """The configuration of an image in a repository."""
    layout = repository / "index.docker.io/library" / name / "latest"
    blob = lambda digest: json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
    manifests = [entry for entry in json.loads((layout / "index.json").read_text())["manifests"] if "artifactType" not in entry]
    return blob(blob(manifests[0]["digest"])["config"]["digest"])


def facts(config):
    """What two lifecycles must agree in: layers by buildpack, the app's, processes, environment. Not the launcher and what
    names its version, nor the label that the specification asks for and the Go exporter never sets."""
    labels = config["config"]["Labels"]
    metadata, build = (json.loads(labels[f"io.buildpacks.{name}.metadata"]) for name in ["lifecycle", "build"])
    layers = {f"{part['key']}:{name}": (layer.get("sha"), layer.get("data"), layer.get("launch"))
              for part in metadata["buildpacks"] for name, layer in part["layers"].items()}
    build.pop("launcher", None)
    return {
        "layers": layers, "app": [layer["sha"] for layer in metadata["app"]], "sbom": metadata.get("sbom"), "process types": metadata.get("process-types"),
        "build": build, "entrypoint": config["config"].get("Entrypoint"), "cmd": config["config"].get("Cmd"), "env": config["config"]["Env"],
        "dir": config["config"].get("WorkingDir"), "labels": sorted(set(labels) - {"io.buildpacks.rebasable"}),
    }


def reference(args, work, builder, app, name, env):
    """Builds by the Go lifecycle's creator, in the builder's file system, into a repository that belongs to the user, as it wants it."""
    root, repository = work / "root", work / "reference-repo"
    subprocess.run(["rm", "-rf", root], check=True)
    if not repository.is_dir():
        shutil.copytree(work / "layout-repo/index.docker.io/library/base", repository / "index.docker.io/library/base")
    run(DRYDOCK, "export", builder, f"dir:{root}")
    shutil.rmtree(root / "cnb/lifecycle", ignore_errors=True)
    shutil.copytree(args.reference, root / "cnb/lifecycle", symlinks=True)
    for dir in ["layers", "cache", "layout-repo", "platform/env"]:
        (root / dir).mkdir(parents=True, exist_ok=True)
    shutil.copytree(app, root / "workspace", dirs_exist_ok=True)
    for variable in env:
        key, value = variable.split("=", 1)
        (root / "platform/env" / key).write_text(value)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    run("chown", "-R", f"{USER}:{USER}", root / "workspace", root / "layers", root / "cache", repository)
    inside = 'mount --bind "$1" "$2/layout-repo" && mount -t proc proc "$2/proc" && exec chroot "$2" env -i PATH=/usr/bin:/bin HOME=/home/cnb ' \
        f'CNB_EXPERIMENTAL_MODE=warn CNB_PLATFORM_API=0.14 /cnb/lifecycle/creator -layout -layout-dir /layout-repo -uid {USER} -gid {USER} ' \
        '-cache-dir /cache -run-image base "$3"'
    log = run("unshare", "--mount", "--pid", "--fork", "sh", "-c", inside, "sh", repository, root, name)
    return log, facts(config(repository, name))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="a folder with the Go lifecycle's executables")
    parser.add_argument("--from", dest="base", default="https://github.com", help="where the buildpacks' repositories are")
    parser.add_argument("--work", type=Path, help="a folder that keeps what is fetched and built [default: a temporary one]")
    args = parser.parse_args()
    if os.geteuid():
        sys.exit("error: the Go lifecycle needs root: run this as root")
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(exist_ok=True)
        fetch(args.base, work)
        found, layout = buildpacks(work), base(work)
        repository = work / "layout-repo"
        for dir in [repository, work / "reference-repo"]:
            shutil.rmtree(dir, ignore_errors=True)
        repository.mkdir()
        os.environ.update(CNB_OCI_LAYOUT_PATH=str(repository), XDG_CACHE_HOME=str(work / "cache"))
        run(DRYDOCK, "import", f"oci:{layout}:base", "base")
        failed = False
        for name, (order, files, env, process, greeting) in APPS.items():
            app = work / "apps" / name
            shutil.rmtree(app, ignore_errors=True)
            for path, text in files.items():
                write(app / path, text)
            group = "".join('[[order.group]]\nid = "{}"\nversion = "{}"\n'.format(*identity(found[part] / "buildpack.toml")) for part in order)
            write(work / "builder.toml", "".join(f'[[buildpacks]]\nuri = "{found[part]}"\n' for part in order) + f'[[order]]\n{group}'
                  '[build]\nimage = "base"\n[[run.images]]\nimage = "base"\n'
                  f'[lifecycle]\nuri = "{next(DIST.parent.glob("lifecycle-*.tgz"))}"\n')
            builder = f"builder-{name}"
            run(DRYDOCK, "builder", "create", builder, "--config", work / "builder.toml")
            variables = [f"--env={variable}" for variable in env]
            arguments = ["--builder", builder, "--path", app, "--lifecycle", DIST, "--network", "host", *variables]
            first = run(DRYDOCK, "build", name, *arguments)
            again = run(DRYDOCK, "build", name, *arguments)
            run(DRYDOCK, "build", f"{name}-trusted", *arguments, "--trust-builder")
            printed = run(DRYDOCK, "run", name, "--network", "none", "--process", process)
            theirs, wanted = reference(args, work, builder, app, name, env)
            digests = [next(line.split()[-1] for line in log.splitlines() if line.startswith(f"{name} is sha256:")) for log in (first, again)]
            problems = []
            if greeting not in printed:
                problems.append(f"it prints `{printed}`")
            if digests[0] != digests[1]:
                problems.append("a second build has another digest")
            ours = facts(config(repository, name))
            for known, what in [(facts(config(repository, f"{name}-trusted")), "the creator alone"), (wanted, "the Go lifecycle")]:
                problems += [f"{what}: {key}: {known[key]} and not {ours[key]}" for key in ours if ours[key] != known[key]]
            (work / f"{name}.log").write_text(first + again + theirs)
            failed |= bool(problems)
            print("\n".join([f"{'FAILED' if problems else 'ok'}: {name}: {len(ours['layers'])} layers of {', '.join(order)}", *problems]), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
