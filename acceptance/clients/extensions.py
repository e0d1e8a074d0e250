#!/usr/bin/env python3
"""Runs the extender on what the Go lifecycle's acceptance tests give theirs, and whole builds with the extensions of buildpacks/samples.

    cargo run -p drydock-package && cargo build --release -p drydock-cli
    python3 acceptance/clients/extensions.py [--from URL] [--work DIR]

As root; programs come from Debian's mirror. README.md beside this file tells more.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bases
import containers
import images
from bases import run, write

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "buildpacks/lifecycle": "4bd4b13ede43d340b8e3960d3e3e5ab42d697d1f",
    "buildpacks/samples": "ff523267214af1a078afbcd6ed82fd55d56baba3",
}
APIS = ["0.10", "0.11", "0.12", "0.13", "0.14", "0.15"]
USER, GROUP = 1234, 1000
# The extensions of buildpacks/samples are for Alpine: Debian does what they ask of its package manager.
APK = """#!/bin/sh
set -e
case $1 in
    update) exec apt-get update ;;
    add) shift; if [ "$1" = --repository ]; then shift 2; fi; exec apt-get install -y --no-install-recommends "$@" ;;
esac
echo "apk: $1?" >&2
exit 1
"""


def fetch(base, work):
    for name, commit in SOURCES.items():
        dir = work / "sources" / name
        if not (dir / "README.md").is_file():
            shutil.rmtree(dir, ignore_errors=True)
            run("git", "clone", "--quiet", "--no-checkout", f"{base}/{name}", dir)
            run("git", "-C", dir, "checkout", "--quiet", commit)


def with_user(layout, work, name, config, change=lambda root: None):
    """A Debian with the user that builds, as files and as a layout."""
    root, new = work / "roots" / name, work / "bases" / name
    if not (new / "index.json").is_file():
        for dir in [root, new]:
            subprocess.run(["rm", "-rf", dir], check=True)
        root.mkdir(parents=True)
        run("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", root, "-xpf", layer_of(layout))
        run("chroot", root, "groupadd", "--gid", GROUP, "cnb")
        run("chroot", root, "useradd", "--uid", USER, "--gid", GROUP, "--create-home", "--shell", "/bin/bash", "cnb")
        change(root)
        _, old = images.config_of(layout)
        images.write_layout(new, name, root, old["config"] | config)
    return root, new


def layer_of(layout):
    """The only layer of a layout's image: the largest blob."""
    return max((layout / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)


class Reference:
    """The acceptance tests of the Go lifecycle's extender, in our words: their Dockerfiles, and what they look at."""

    def __init__(self, work, args):
        self.work, self.executables, self.data = work, args.executables, work / "sources/buildpacks/lifecycle/acceptance/testdata/extender/container"
        env = [bases.PATH, f"CNB_USER_ID={USER}", f"CNB_GROUP_ID={GROUP}"]
        self.root, self.layout = with_user(bases.layout("debian", work), work, "extended", {"Env": env}, self.add)

    def add(self, root):
        shutil.copytree(self.data, root, dirs_exist_ok=True)

    def extend(self, api, kind, place):
        """One run; what it printed."""
        digest, config = images.config_of(self.layout)
        reference = f'reference = "registry.example/extended@{digest}"'
        write(place / "analyzed.toml", f"[build-image]\n{reference}\n[run-image]\n{reference}\nextend = true\n")
        for dir in ["extended", "kaniko/cache/base"]:
            (place / dir).mkdir(parents=True, exist_ok=True)
        images.write_sparse(self.layout, place / "kaniko/cache/base")
        generated = "/layers/generated" + ("-with-contexts" if float(api) >= 0.13 else "")
        flags = ["-analyzed", "/layers/analyzed.toml", "-generated", generated, "-log-level", "debug", "-gid", str(GROUP), "-uid", str(USER)]
        flags += ["-kind", "run", "-extended", "/layers/extended"] if kind == "run" else []
        volumes = {place / "analyzed.toml": "/layers/analyzed.toml", place / "extended": "/layers/extended", place / "kaniko": "/kaniko",
                   self.executables: "/cnb/lifecycle"}
        env = dict(variable.split("=", 1) for variable in config["config"]["Env"]) | {"CNB_PLATFORM_API": api}
        return containers.run(self.root, volumes, env, ["/cnb/lifecycle/extender", *flags])

    def judge(self, api, kind):
        """What is wrong, of a first run and a second one."""
        with tempfile.TemporaryDirectory(dir=self.work) as place:
            place, problems, said = Path(place), [], []
            for _ in range(2):
                code, text = self.extend(api, kind, place)
                said.append(text)
                if code:
                    return [f"exit code {code}"], said
                problems += self.judge_one(api, kind, place, text)
            installs = [[f"Setting up {name} " in text for name in ("curl", "tree")] for text in said]
            if installs != [[True, True], [False, False]]:
                problems.append(f"programs are installed by the first and the second run: {installs}")
        return problems, said

    def judge_one(self, api, kind, place, text):
        left = sorted(path.name for path in (place / "kaniko").iterdir() if path.name != "layers")
        if left != ["cache"]:
            yield f"the folder for extenders has {left}"
        by_buildpack = "Hello Extensions buildpack\ncurl" in text
        if by_buildpack != (kind == "build"):
            yield "the buildpack has " + ("run" if by_buildpack else "not found curl")
        if kind == "build":
            for line in ["CNB_STACK_ID for buildpack: stack-id-from-ext-tree", "HOME for buildpack: /home/cnb"]:
                if line not in text:
                    yield f"`{line}` is not said"
            return
        found = sorted((place / "extended/run").iterdir())
        if len(found) != 1:
            yield f"there are {len(found)} extended images"
            return
        digest, config = images.config_of(found[0])
        if digest != found[0].name:
            yield f"{found[0].name} holds {digest}"
        if config["config"]["Labels"]["io.buildpacks.rebasable"] != "false":
            yield "it is rebasable"
        history = [entry.get("created_by") for entry in config["history"]]
        if len(history) != len(config["rootfs"]["diff_ids"]):
            yield "history and layers do not fit together"
        wanted = [(name, text) for name in ("curl", "tree") for text in (
            f"RUN apt-get update && apt-get install -y {name}", {"curl": "COPY run-file /", "tree": "COPY shared-file /shared-run"}[name])]
        wanted = [f"Layer: '{text}', Created by extension: {name}" for name, text in wanted if float(api) >= 0.13 or text.startswith("RUN")]
        if [text for text in history if text in wanted] != wanted:
            yield f"the history is {history}"
        manifest = json.loads((found[0] / "blobs" / digest.replace(":", "/")).read_text())
        blobs = [found[0] / "blobs" / layer["digest"].replace(":", "/") for layer in manifest["layers"]]
        names = {path for blob in blobs if blob.exists() for path, _, _ in images.entries(blob)}
        if "workspace/some-file" in names or any(name.startswith(("layers/", "kaniko/", "cnb/")) for name in names):
            yield "a layer has what is no part of the image"
        if "usr/bin/tree" not in names:
            yield "no layer has what was installed"


class Samples:
    """Whole builds with the extensions of buildpacks/samples: `curl` chooses another run image, `cowsay` extends that one, `vim` the build image."""

    NAMES = ["curl", "cowsay", "vim"]

    def __init__(self, work, args):
        self.work, self.args, self.sources = work, args, work / "sources/buildpacks/samples"
        self.repository = work / "layout-repo"
        shutil.rmtree(self.repository, ignore_errors=True)
        self.repository.mkdir()
        # What an earlier run extended would be found.
        for kept in (work / ".cache/drydock/roots").glob("extended-*"):
            shutil.rmtree(kept)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(work), "CNB_OCI_LAYOUT_PATH": str(self.repository)}
        config = {"User": f"{USER}:{GROUP}", "Env": [f"{bases.PATH}:/usr/games", f"CNB_USER_ID={USER}", f"CNB_GROUP_ID={GROUP}"],
                  "Labels": {"io.buildpacks.base.distro.name": "debian", "io.buildpacks.base.distro.version": "12"}}
        apk = lambda root: write(root / "usr/local/bin/apk", APK, 0o755)
        # Without /dev/null, apt can verify nothing.
        install = 'mount --bind /dev "$0/dev" && chroot "$0" sh -c "apt-get update && apt-get install -y --no-install-recommends curl"'
        curl = lambda root: (apk(root), run("unshare", "--mount", "sh", "-c", install, root))
        debian = bases.layout("debian", work)
        for name, image, change in [("samples", "base", apk), ("samples-curl", "localhost:5000/run-image-curl", curl)]:
            _, layout = with_user(debian, work, name, config, change)
            self.drydock("import", f"oci:{layout}:latest", image)
        self.builder()

    def drydock(self, *arguments):
        return run(self.args.drydock, *arguments, env=self.env)

    def builder(self):
        part = lambda kind, name: f'[[{kind}s]]\nuri = "{self.sources}/{kind}s/{name}"\n'
        extensions = "".join(part("extension", name) for name in self.NAMES)
        order = "".join(f'[[order-extensions.group]]\nid = "samples/{name}"\nversion = "0.0.1"\n' for name in self.NAMES)
        write(self.work / "builder.toml", f"""{part("buildpack", "hello-extensions")}{extensions}
[[order]]
[[order.group]]
id = "samples/hello-extensions"
version = "0.0.1"
[[order-extensions]]
{order}
[build]
image = "base"
[[run.images]]
image = "base"
[lifecycle]
uri = "{next(self.args.executables.parent.glob("lifecycle-*.tgz"))}"
""")
        self.drydock("builder", "create", "builder", "--config", self.work / "builder.toml")

    def judge(self, trusted):
        """Two builds, and what the app says; problems and what was said."""
        app, name = self.work / "app", f"app{'-trusted' * trusted}"
        write(app / "file", "an app\n")
        words = ["build", name, "--builder", "builder", "--path", app, "--lifecycle", self.args.executables, "--network", "host", "--env", "BP_EXT_DEMO=1",
                 "--env", "BP_REQUIRES=vim,curl,cowsay", *(["--trust-builder"] if trusted else [])]
        said, problems = [self.drydock(*words), self.drydock(*words)], []
        for program in ["vim", "cowsay"]:
            installs = [f"Setting up {program} " in text for text in said]
            # What the first builder extended, the trusted one finds.
            if installs != [not trusted, False]:
                problems.append(f"{program} is installed by the first and the second build: {installs}")
        if "VIM - Vi IMproved" not in said[0]:
            problems.append("the buildpack has not found vim")
        digests = [re.findall(rf"{name} is (sha256:\w+)", text) for text in said]
        if not digests[0] or digests[0] != digests[1]:
            problems.append(f"the builds gave {digests}")
        for process, wanted in [("curl", "curl 7."), ("cowsay", "MOOOO!")]:
            printed = self.drydock("run", name, "--network", "none", "--process", process)
            if wanted not in printed:
                problems.append(f"`{process}` prints `{printed}`")
        return problems, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="base", default="https://github.com", help="where the repositories are")
    parser.add_argument("--work", type=Path, help="a folder that keeps what is fetched and built [default: a temporary one]")
    parser.add_argument("--executables", type=Path, default=ROOT / "target/dist", help="default: those that ship, in target/dist")
    parser.add_argument("--drydock", type=Path, default=ROOT / "target/release/drydock", help="default: target/release/drydock")
    parser.add_argument("--api", action="append", help="only this Platform API of the extender's tests; `none`: only whole builds")
    args = parser.parse_args()
    args.executables, args.drydock = args.executables.resolve(), args.drydock.resolve()
    if os.geteuid():
        sys.exit("error: an extender is root in its container: run this as root")
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        (work / "logs").mkdir(parents=True, exist_ok=True)
        fetch(args.base, work)
        reference, samples = Reference(work, args), None
        # There are extended run images since 0.12.
        trials = [(f"{kind} image, Platform API {api}", lambda api=api, kind=kind: reference.judge(api, kind))
                  for api in APIS for kind in ("build", "run") if (not args.api or api in args.api) and (kind == "build" or float(api) >= 0.12)]
        if not args.api or "none" in args.api:
            samples = Samples(work, args)
            trials += [(f"samples, {'trusted' if trusted else 'untrusted'} builder", lambda trusted=trusted: samples.judge(trusted)) for trusted in (False, True)]
        failed = 0
        for name, judge in trials:
            problems, said = judge()
            (work / "logs" / f"{name}.log").write_text("\n".join(said))
            print("\n    ".join([f"{'FAILED' if problems else 'ok'}: {name}", *problems]), flush=True)
            failed += bool(problems)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
