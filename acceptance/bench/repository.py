#!/usr/bin/env python3
"""Measures what `drydock` does with a repository of layouts against other people's tools, in turns, and prints a table.

    cargo run -p drydock-package && cargo build --release -p drydock-cli && python3 acceptance/bench/repository.py [--json] [--rounds N] [--quick]

The image is what the exporter makes of the benchmark's app, on a run image of 300 MB: 500 MB in all. Rivals: skopeo, umoci, GNU tar, gzip,
sha256sum on all cores; the registry is Debian's docker-registry on this machine. Before each run, all files that it reads are read once.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import inputs
from bench import HERE, Tool, in_turns, line, parser, run
from inputs import MIB

FLATTEN = r"""
set -e -o pipefail
umoci unpack "$1" --image "$2" "$3/bundle"
tar --sort=name --numeric-owner --xattrs -cf - -C "$3/bundle/rootfs" . | tee >(sha256sum >"$3/diff_id") | gzip -1 | tee >(sha256sum >"$3/digest") >"$3/blob"
"""

EACH = 'find "$1" -path "*/blobs/*" -type f -print0 | xargs -0 -n 1 -P "$(nproc)" '
SUMS = EACH + "sha256sum >/dev/null"
# As much as is checked here: what is in layers, too.
SUMS_OF_TARS = EACH + """sh -c 'sha256sum "$1"; gzip -dcf "$1" | sha256sum' sums >/dev/null"""


class Rows:
    def __init__(self, options, dir):
        self.options, self.dir, self.rows = options, dir, []
        quick = options.quick
        tool = Tool("exporter", options.executables, options.executables / "launcher", dir / "exporter", 3 * MIB if quick else 300 * 10**6)
        build = inputs.node_app(dir / "node", quick)
        tool.first_export(build)
        shutil.rmtree(dir / "node")
        self.repository, self.app = tool.repository, tool.app
        self.image = f"oci:{self.app}:latest"
        self.name_for_others()
        # umoci must be told that it is not root.
        self.rootless = "--keep-dirlinks" if os.getuid() == 0 else "--rootless"

    def name_for_others(self):
        """skopeo and umoci want a name in the index."""
        index = json.loads((self.app / "index.json").read_text())
        index["manifests"][0].setdefault("annotations", {})["org.opencontainers.image.ref.name"] = "latest"
        (self.app / "index.json").write_text(json.dumps(index))

    def against(self, work, rival, ours, theirs):
        """Each of `ours` and `theirs` gets a new folder, and gives a command and what it reads."""
        def cost(make):
            out = Path(tempfile.mkdtemp(dir=self.dir))
            command, reads = make(out)
            try:
                return run(command, os.environ, reads=reads)
            finally:
                shutil.rmtree(out)
        costs = in_turns(self.options.rounds, lambda: cost(ours), lambda: cost(theirs))
        row = {"work": work, "rival": rival, "ours": costs[0], "theirs": costs[1], "ratio": costs[1]["wall"] / costs[0]["wall"], "asked": 1}
        self.rows.append(row)
        print(line(row), file=sys.stderr, flush=True)

    def drydock(self, repository, *arguments):
        return [self.options.drydock, "--layout-dir", repository, *arguments]

    def all(self):
        self.archive()
        self.registry()
        self.flatten()
        self.unpack()
        self.verify()

    def archive(self):
        file = self.dir / "app.tar"
        subprocess.run(["skopeo", "copy", "-q", self.image, f"oci-archive:{file}:app:latest"], check=True)
        self.against("import oci-archive:", "skopeo copy",
                     lambda out: (self.drydock(out, "import", f"oci-archive:{file}", "app"), [file]),
                     lambda out: (["skopeo", "copy", "-q", f"oci-archive:{file}", f"oci:{out}:latest"], [file]))
        self.against("export oci-archive:", "skopeo copy",
                     lambda out: (self.drydock(self.repository, "export", "app", f"oci-archive:{out}/app.tar"), [self.app]),
                     lambda out: (["skopeo", "copy", "-q", self.image, f"oci-archive:{out}/app.tar"], [self.app]))
        file.unlink()

    def registry(self):
        with registry(self.dir) as (host, data):
            sources = self.dir / "sources.toml"
            sources.write_text(f"[host.'{host}']\nplain-http = true\n")
            subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", self.image, f"docker://{host}/app:latest"], check=True)
            self.against("import docker://", "skopeo copy",
                         lambda out: (self.drydock(out, "--sources", sources, "import", f"docker://{host}/app:latest", "app"), [data]),
                         lambda out: (["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{host}/app:latest", f"oci:{out}:latest"], [data]))

    def flatten(self):
        def ours(out):
            shutil.copytree(self.app, out / self.app.relative_to(self.repository), copy_function=os.link)
            return self.drydock(out, "flatten", "app", "flat"), [self.app]
        theirs = lambda out: (["bash", "-c", FLATTEN, "flatten", self.rootless, f"{self.app}:latest", out], [self.app])
        self.against("flatten", "umoci, tar, gzip -1", ours, theirs)

    def unpack(self):
        self.against("export dir:", "umoci unpack",
                     lambda out: (self.drydock(self.repository, "export", "app", f"dir:{out}/tree"), [self.app]),
                     lambda out: (["umoci", "unpack", self.rootless, "--image", f"{self.app}:latest", out / "bundle"], [self.app]))

    def verify(self):
        """Different layers, for the first time and again; and copies, each of which must be read."""
        kept = self.dir / "kept"
        ours = lambda cache, repository, *names: ["env", f"XDG_CACHE_HOME={cache}", *self.drydock(repository, "verify", *names)]
        subprocess.run(ours(kept, self.repository, "app"), check=True, stdout=subprocess.DEVNULL)
        theirs = lambda sums, what: lambda _: (["bash", "-c", sums, "sums", what], [what])
        for work, rival, sums, cache in (("verify of an image", "sha256sum", SUMS, None), ("verify of an image", "sha256sum, gzip -d", SUMS_OF_TARS, None),
                                         ("verify of it again", "sha256sum", SUMS, kept)):
            self.against(work, rival, lambda out: (ours(cache or out, self.repository, "app"), [self.app]), theirs(sums, self.app))
        many = self.dir / "many"
        for i in range(2 if self.options.quick else 10):
            shutil.copytree(self.app, many / f"index.docker.io/library/app{i}/latest")
        self.against("verify of 10 copies of it", "sha256sum", lambda out: (ours(out, many), [many]), theirs(SUMS, many))
        shutil.rmtree(many)


@contextlib.contextmanager
def registry(dir):
    """A registry with plain HTTP; gives its host and the folder with its data."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    data, config = dir / "registry", dir / "registry.yml"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp: {{addr: '{host}'}}\n")
    env = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
    child = subprocess.Popen(["docker-registry", "serve", config], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(host.split(":")):
                break
            time.sleep(0.05)
        else:
            sys.exit("error: docker-registry does not start")
        yield host, data
    finally:
        child.terminate()
        child.wait()
        shutil.rmtree(data, ignore_errors=True)


def main():
    arguments = parser(__doc__, "15 GB")
    arguments.add_argument("--drydock", type=Path, default=HERE.parents[1] / "target/release/drydock", help="default: target/release/drydock")
    options = arguments.parse_args()
    options.executables, options.drydock = options.executables.resolve(), options.drydock.resolve()
    with tempfile.TemporaryDirectory(prefix="drydock-repository-", dir=options.dir) as dir:
        rows = Rows(options, Path(dir))
        rows.all()
    print(json.dumps(rows.rows, indent=1) if options.json else "\n".join(map(line, rows.rows)))


if __name__ == "__main__":
    main()
