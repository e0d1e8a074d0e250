"""Base images, made of what is on this machine and of Debian's mirror: no registry is needed. As root.

A base is a folder with files and a configuration; `layout(name, work)` makes it once, as a layout in a folder that is kept.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import images

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n"
GROUP = "root:x:0:\ndaemon:x:1:\ncnb:x:1000:\nstaff:x:50:cnb\n"
# CAP_NET_BIND_SERVICE, permitted and effective (version 2 of the kernel's format).
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
SUITE = "bookworm"


def run(*command, **options):
    """Runs a command, and ends this program with what it printed if it fails."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    if done.returncode:
        sys.exit(f"{done.stdout}\nerror: exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def needed(program, package):
    return Path(shutil.which(program) or sys.exit(f"error: {program} is missing: apt-get install {package}")).resolve()


def busybox(root):
    """A small user land with what layers have trouble with: links, modes, owners, a capability, folders to be replaced."""
    for dir, mode in [("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home/cnb", 0o755), ("proc", 0o555), ("root", 0o700), ("run", 0o755),
                      ("sys", 0o555), ("tmp", 0o1777), ("usr/bin", 0o755), ("var/spool", 0o2775), ("data/sub/deep", 0o755)]:
        (root / dir).mkdir(parents=True)
        (root / dir).chmod(mode)
    program = needed("busybox", "busybox-static")
    shutil.copy(program, root / "bin/busybox")
    for applet in run(program, "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for path, text in [("etc/passwd", PASSWD), ("etc/group", GROUP), ("etc/hosts", ""), ("etc/hostname", ""), ("etc/resolv.conf", ""), ("etc/motd", "the base\n"),
                       ("data/a", "a\n"), ("data/b", "b\n"), ("data/sub/c", "c\n"), ("data/sub/deep/d", "d\n"), ("home/cnb/.profile", "umask 022\n")]:
        write(root / path, text)
    write(root / "etc/shadow", "root:*:19000:0:99999:7:::\n", 0o640)
    write(root / "usr/bin/as-root", "#!/bin/sh\nexec id -u\n", 0o4755)
    write(root / "usr/bin/capable", "#!/bin/sh\n", 0o755)
    os.setxattr(root / "usr/bin/capable", "security.capability", CAPABILITY)
    os.link(root / "data/a", root / "data/hard")
    (root / "data/link").symlink_to("sub")
    (root / "bin/busybox").chmod(0o755)
    for path in [root / "home/cnb", root / "home/cnb/.profile"]:
        os.chown(path, 1000, 1000)
    for dir, dirs, files in os.walk(root):
        for name in [*dirs, *files, "."]:
            os.utime(Path(dir) / name, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    return {"Env": [PATH, "BASE=yes"], "Cmd": ["/bin/sh"], "Labels": {"of": "base"}, "WorkingDir": "/", "User": ""}


def triggers(root):
    """A base that asks something of what is built upon it."""
    return busybox(root) | {"OnBuild": ["ENV TRIGGERED=yes", "COPY . /app/", "RUN echo triggered >/app/by"]}


def settled(root):
    """A base with every setting that one can have."""
    return busybox(root) | {
        "User": "cnb", "WorkingDir": "/home/cnb", "Entrypoint": ["/bin/env"], "Cmd": ["a"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}},
        "StopSignal": "SIGTERM", "Shell": ["/bin/ash", "-ec"], "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 5_000_000_000, "Retries": 2}}


def debian(root, packages=()):
    include = ",".join(["ca-certificates", *packages])
    run("debootstrap", "--variant=minbase", f"--include={include}", SUITE, root)
    # Whatever stands between this machine and the registries is trusted there, too.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs")
    for name in ["hosts", "hostname"]:
        (root / "etc" / name).write_text("")
    for name in ["dev", "var/cache/apt/archives", "var/lib/apt/lists", "var/log", "run"]:
        for path in (root / name).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (root / "var/cache/apt/archives/partial").mkdir()
    return {"Env": [PATH], "Cmd": ["bash"], "WorkingDir": "/"}


def node(root):
    """Debian with this machine's Node.js and npm."""
    config = debian(root, ["libatomic1", "libstdc++6"])
    program, npm = needed("node", "nodejs"), needed("npm", "npm").parents[1]
    shutil.copy(program, root / "usr/local/bin/node")
    for library in run("ldd", program).splitlines():
        path = Path(library.split("=>")[-1].split()[0])
        if path.is_absolute() and not (root / str(path)[1:]).exists():
            (root / str(path)[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / str(path)[1:])
    modules = root / "usr/local/lib/node_modules"
    if npm.parent.name == "nodejs" or not (npm / "node_modules").is_dir():
        shutil.copytree(npm.parent, modules, symlinks=False, dirs_exist_ok=True)
    else:
        shutil.copytree(npm, modules / "npm", symlinks=True)
    (root / "usr/local/bin/npm").symlink_to(f"../lib/node_modules/{npm.name}/bin/npm-cli.js")
    run("chroot", root, "useradd", "--uid", "1000", "--create-home", "node")
    write(root / "etc/npmrc", "cafile=/etc/ssl/certs/ca-certificates.crt\n")
    return config | {"Env": [PATH, "NPM_CONFIG_GLOBALCONFIG=/etc/npmrc"], "Cmd": ["node"]}


def golang(root):
    """Debian with this machine's Go."""
    config = debian(root)
    go = needed("go", "golang-go").parents[1]
    shutil.copytree(go, root / "usr/local/go", symlinks=True, ignore=shutil.ignore_patterns("testdata", "test", "doc", "api"))
    return config | {"Env": ["PATH=/go/bin:/usr/local/go/bin:" + PATH[len("PATH="):], "GOPATH=/go", "GOTOOLCHAIN=local"], "WorkingDir": "/go"}


def python(root):
    config = debian(root, ["python3", "python3-pip", "python3-venv"])
    return config | {"Env": [PATH, "PIP_CERT=/etc/ssl/certs/ca-certificates.crt"], "Cmd": ["python3"]}


ALL = {make.__name__: make for make in [busybox, triggers, settled, debian, node, golang, python]}


def layout(name, work):
    """The base `name` as a layout below `work`, which is made if it is not there."""
    dir = work / "bases" / name
    if not (dir / "index.json").is_file():
        shutil.rmtree(dir, ignore_errors=True)
        root = work / "roots" / name
        subprocess.run(["rm", "-rf", root], check=True)
        root.mkdir(parents=True)
        config = ALL[name](root)
        images.write_layout(dir, name, root, config)
        subprocess.run(["rm", "-rf", root], check=True)
    return dir
