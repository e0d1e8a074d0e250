#!/usr/bin/env python3
"""Builds Dockerfiles by `drydock import dockerfile:…` and by `buildah build`: the same files, settings, history and failures must come out.

    cargo build --release -p drydock-cli && python3 acceptance/clients/dockerfiles.py [--quick] [--work DIR] [CASE…]

As root. Cases are in dockerfiles/*.txt, what may differ in dockerfiles.md. README.md beside this file tells more.
"""

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bases
import images

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# In no log, layer or configuration, whatever a case does with it.
SECRET = "swordfish"
# When all files of a context were changed, and a time between that of base images and now: what is earlier is defined, and must be the same.
THEN, LONG_AGO = 1_500_000_000, 1_700_000_000
# Further differences of a case are not listed.
MOST = 20
PATIENCE = 1200
SETTINGS = ["User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal", "Healthcheck", "Shell", "OnBuild"]


@dataclasses.dataclass
class Case:
    """A Dockerfile; `theirs` says the same in words that buildah knows, where it does not know ours."""
    name: str
    fails: bool
    quick: bool
    flags: list
    setup: str
    ours: str
    theirs: str


def cases(path):
    """The cases of a file: `=== NAME [quick] [fails] [FLAG…]`, lines with `$ ` of a script that fills the context, the Dockerfile; perhaps, after
    `--- buildah`, the one for buildah."""
    for text in re.split(r"^=== ", path.read_text(), flags=re.MULTILINE)[1:]:
        head, *lines = text.rstrip("\n").split("\n")
        name, *words = head.split()
        setup = []
        while lines and lines[0].startswith("$ "):
            setup.append(lines.pop(0)[2:])
        ours, _, theirs = ("\n".join(lines) + "\n").partition("--- buildah\n")
        flags = [word for word in words if word not in ("fails", "quick")]
        yield Case(name, "fails" in words, "quick" in words, flags, "\n".join(setup), ours, theirs or ours)


def known(path):
    """What may differ: case and field -> reason, from the tables of a document."""
    rows = [[cell.strip().strip("`") for cell in line.strip("|\n ").split("|")] for line in path.read_text().splitlines() if line.startswith("| `")]
    return {(case, field): reason for names, field, reason in rows for case in names.replace("`", "").split(", ")}


class Judge:
    """Both builders, each with a place of its own."""

    def __init__(self, options, work):
        self.options, self.work = options, work
        self.repository, self.home = work / "layout-repo", work / "home"
        self.storage = ["--root", work / "storage", "--runroot", work / "state", "--storage-driver", options.driver]
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "CNB_OCI_LAYOUT_PATH": str(self.repository), "TMPDIR": str(work)}
        self.layers, self.there = {}, set()
        for dir in [self.repository, self.home]:
            shutil.rmtree(dir, ignore_errors=True)
            dir.mkdir()
        # Base images that are not there are looked for nowhere.
        bases.write(self.home / ".config/drydock/sources.toml", 
                    f'strict = true\n[source.bases]\nkind = "layout"\nlocation = "{work}"\n[source.contexts]\nkind = "dockerfile"\nlocation = "{work}"\n')

    def command(self, command, cwd):
        """Exit code, and what was said."""
        try:
            done = subprocess.run(list(map(str, command)), cwd=cwd, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return -1, f"it took longer than {PATIENCE} s"
        return done.returncode, done.stdout

    def must(self, *command):
        code, said = self.command(command, self.work)
        if code:
            sys.exit(f"{said}\nerror: exit code {code}: {' '.join(map(str, command))}")
        return said

    def base(self, name):
        """Gives a base image to both."""
        if name in self.there or name not in bases.ALL:
            return
        layout = bases.layout(name, self.work)
        self.must(self.options.drydock, "import", f"oci:{layout}:latest", name)
        self.must("skopeo", "copy", "--quiet", f"oci:{layout}:latest", f"containers-storage:[{self.options.driver}@{self.work}/storage+{self.work}/state]localhost/{name}:latest")
        self.there.add(name)

    def context(self, case, text):
        """A new folder with the case's files."""
        dir = self.work / "contexts" / case.name
        subprocess.run(["rm", "-rf", dir], check=True)
        dir.mkdir(parents=True)
        name = case.flags[case.flags.index("--file") + 1] if "--file" in case.flags else "Dockerfile"
        done = subprocess.run(["sh", "-euc", case.setup], cwd=dir, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: the context of `{case.name}` cannot be made: {done.stderr}")
        bases.write(dir / name, text)
        subprocess.run(["find", dir, "-exec", "touch", "-h", "-d", f"@{THEN}", "{}", "+"], check=True)
        return dir

    def theirs(self, case):
        """What buildah makes of it: the image, or nothing; and what it says."""
        context, out = self.context(case, case.theirs), self.work / "theirs"
        shutil.rmtree(out, ignore_errors=True)
        isolation = ["--isolation", self.options.isolation] + (["--runtime", "runc"] if self.options.isolation == "oci" else [])
        flags = ["--format", "docker", "--pull=never", "--identity-label=false", "--layers", "--no-cache", "--network", "host", *isolation, *case.flags]
        code, said = self.command(["buildah", *self.storage, "build", *flags, "--tag", "localhost/judged", context], context)
        if code:
            return None, said
        self.must("buildah", *self.storage, "push", "--quiet", "localhost/judged", f"dir:{out}")
        return images.read(out, self.layers), said

    def ours(self, case):
        context, out = self.context(case, case.ours), self.repository / "index.docker.io/library/judged/latest"
        shutil.rmtree(out.parent, ignore_errors=True)
        before = listed(self.repository)
        code, said = self.command([self.options.drydock, "import", *case.flags, f"dockerfile:{context}", "judged"], context)
        if code:
            left = listed(self.repository) - before
            return None, said, [f"a failed build leaves {', '.join(sorted(left))}"] if left else []
        image = images.read(out, self.layers)
        leaks = [f"the secret is in blob {name}" for name, data in images.blobs(out) if SECRET.encode() in data] if SECRET in case.setup else []
        return image, said, image.faults + leaks

    def compare(self, case):
        """Differences, by field, and what both said."""
        for name in ["busybox", *re.findall(r"(?i)from[ =]([a-z]+)", case.ours + case.theirs)]:
            self.base(name)
        (theirs, they_said), (ours, we_said, faults) = self.theirs(case), self.ours(case)
        found = {f"fault {i}": fault for i, fault in enumerate(faults)}
        if SECRET in we_said:
            found["log"] = "the secret is in the log"
        for who, image in [("buildah", theirs), ("drydock", ours)]:
            if (image is None) != case.fails:
                found[f"outcome of {who}"] = "it fails" if image is None else "it succeeds"
        if theirs and ours:
            found |= dict(differences(theirs, ours, case.ours == case.theirs))
        return found, f"buildah:\n{they_said}\ndrydock:\n{we_said}\n"


def listed(dir):
    return {str(path.relative_to(dir)) for path in dir.rglob("*")}


def differences(theirs, ours, is_same_text):
    """Fields in which two images differ, with both values."""
    links = theirs.links(), ours.links()
    for path in sorted(theirs.tree.keys() | ours.tree.keys()):
        their, our = theirs.tree.get(path), ours.tree.get(path)
        if their is None or our is None:
            yield f"/{path}", f"only buildah has this {their.kind}" if their else f"only drydock has this {our.kind}"
            continue
        for fact in ["kind", "mode", "owner", "contents", "xattrs"]:
            if getattr(their, fact) != getattr(our, fact):
                yield f"/{path} {fact}", f"{getattr(their, fact)}, drydock: {getattr(our, fact)}"
        if links[0][id(their)] != links[1][id(our)]:
            yield f"/{path} links", f"{links[0][id(their)]}, drydock: {links[1][id(our)]}"
        if min(their.time, our.time) < LONG_AGO and their.time != our.time and their.kind == our.kind != "folder":
            yield f"/{path} time", f"{their.time}, drydock: {our.time}"
    for part in ["os", "architecture", "variant", "author"]:
        if (theirs.config.get(part) or None) != (ours.config.get(part) or None):
            yield part, f"{theirs.config.get(part)}, drydock: {ours.config.get(part)}"
    for name in SETTINGS:
        their, our = (image.config.get("config", {}).get(name) or None for image in (theirs, ours))
        if their != our:
            yield f"config {name}", f"{their}, drydock: {our}"
    their, our = history(theirs), history(ours)
    if is_same_text and their != our:
        yield "history", f"{their}, drydock: {our}"


def history(image):
    """The instructions, each followed by ` -` if it has no layer."""
    return [word(entry.get("created_by", "")) + " -" * bool(entry.get("empty_layer")) for entry in image.config.get("history", [])]


def word(text):
    """The instruction that made a layer, as BuildKit writes it or as buildah does: that one writes a RUN without its name."""
    _, nop, rest = text.partition("#(nop)")
    word = (rest if nop else text).split(maxsplit=1)[0] if text.strip() else ""
    return word if word.isupper() else "RUN" if re.match(r"(\|\d|/bin/|\[)", text) else text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only these, or those of these files")
    parser.add_argument("--quick", action="store_true", help="only the cases that the tests run: no network, no large base")
    parser.add_argument("--drydock", type=Path, default=ROOT / "target/release/drydock", help="default: target/release/drydock")
    parser.add_argument("--work", type=Path, help="a folder that keeps base images and logs [default: a temporary one]")
    parser.add_argument("--isolation", default="oci", choices=["oci", "chroot"], help="how buildah runs programs; oci is by runc")
    parser.add_argument("--driver", default="overlay", choices=["overlay", "vfs"], help="how buildah stores images")
    options = parser.parse_args()
    options.drydock = options.drydock.resolve()
    if os.geteuid():
        sys.exit("error: base images have files of several owners: run this as root")
    wanted = [case for path in sorted((HERE / "dockerfiles").glob("*.txt")) for case in cases(path)
              if (case.quick or not options.quick) and (not options.cases or {case.name, path.stem} & set(options.cases))]
    with tempfile.TemporaryDirectory(prefix="drydock-dockerfiles-") as temporary:
        work = (options.work or Path(temporary)).resolve()
        (work / "logs").mkdir(parents=True, exist_ok=True)
        work.chmod(0o755)
        judge, may_differ, failed = Judge(options, work), known(HERE / "dockerfiles.md"), []
        try:
            for case in wanted:
                found, said = judge.compare(case)
                allowed = {field for name, field in may_differ if name in (case.name, "each")}
                never = {field for name, field in may_differ if name == case.name} - found.keys()
                problems = [f"{field}: {what}" for field, what in found.items() if field not in allowed]
                problems += [f"{field}: this does not differ, and is said to" for field in sorted(never)]
                (work / f"logs/{case.name}.log").write_text(said)
                print("\n    ".join([f"{'FAILED' if problems else 'ok'}: {case.name}", *problems[:MOST]]), flush=True)
                failed += [case.name] if problems else []
        finally:
            # Builds that fail leave theirs mounted.
            subprocess.run(["umount", "--recursive", "--lazy", work / "storage/overlay"], capture_output=True)
        print(f"{len(wanted)} cases, {len(failed)} failed")
    sys.exit(bool(failed) or not wanted)


if __name__ == "__main__":
    main()
