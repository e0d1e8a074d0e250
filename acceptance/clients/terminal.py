#!/usr/bin/env python3
"""Writes into README.md what `drydock` prints on a terminal: builds two versions of the sample app, runs commands, takes what they print, without the
temporary folder's name and what does not fit in a line.

    cargo run -p drydock-package && cargo build --release -p drydock-cli && python3 acceptance/clients/terminal.py
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import tempfile
import termios
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST, DRYDOCK, SAMPLE = ROOT / "target/dist", ROOT / "target/release/drydock", ROOT / "acceptance/sample"
BEGIN, END = "<!-- made by acceptance/clients/terminal.py -->\n", "<!-- end -->\n"
WIDTH = 118


def on_terminal(command, dir):
    """All that a command writes to a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
        os.chdir(dir)
        os.execve(DRYDOCK, ["drydock", *command], {"TERM": "xterm", "HOME": str(dir), "LANG": "C.UTF-8", "CNB_OCI_LAYOUT_PATH": str(dir / "layout-repo")})
    written = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.waitpid(pid, 0)
    os.close(terminal)
    return written.decode()


def lines(written):
    """What stands there in the end; of a bar, a state from the middle, where there is one."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", lambda code: "\r" if code[0][-1] in "KGJ" else "", written)
    for line in plain.split("\n"):
        states = [state.rstrip() for state in line.split("\r") if state.strip()]
        bars = [state for state in states if re.search(r"\d+%|ETA|/s", state)]
        if bars:
            yield bars[len(bars) // 2]
        yield from states[-1:] if states[-1:] != bars[-1:] else []


def build(dir, name):
    shutil.rmtree(dir / "layers", ignore_errors=True)
    (dir / "layers").mkdir()
    env = {"PATH": os.environ["PATH"], "CNB_PLATFORM_API": "0.14", "CNB_USE_OCI_LAYOUT": "true", "CNB_OCI_LAYOUT_PATH": str(dir / "layout-repo")}
    subprocess.run([DIST / "creator", "-run-image", "cnb/my-full-stack-run:bionic", "-app", dir / "app", "-layers", dir / "layers",
                    "-platform", dir / "platform", "-buildpacks", SAMPLE / "cnb/buildpacks", "-order", SAMPLE / "cnb/order.toml",
                    "-launcher", DIST / "launcher", name], env=env, check=True, capture_output=True)


def main():
    with tempfile.TemporaryDirectory(prefix="d-") as dir:
        dir = Path(dir)
        shutil.copytree(ROOT / "layout-repo-example", dir / "layout-repo")
        shutil.copytree(SAMPLE / "app", dir / "app")
        (dir / "platform").mkdir()
        build(dir, "acme/shop:1.0")
        (dir / "app/prices.txt").write_text("apples 3\n")
        build(dir, "acme/shop:1.1")
        # Something that is large enough for a bar to be seen.
        (dir / "tree").mkdir()
        with open(dir / "tree/data", "wb") as file:
            for _ in range(600):
                file.write(os.urandom(1 << 20))
        subprocess.run(["tar", "-cf", dir / "data.tar", "-C", dir / "tree", "."], check=True)
        parts = []
        for command in ("import rootfs:data.tar acme/data:2026", "ls", "inspect acme/shop:1.1", "tree acme/shop:1.1 --layer 5",
                        "diff acme/shop:1.0 acme/shop:1.1"):
            said = "\n".join(lines(on_terminal(command.split(), dir)))
            said = said.replace(f"{dir}", "").replace(f"{dir}/".lstrip("/"), "")
            parts.append(f"$ drydock {command}\n{said}".rstrip())
    shown = (line if len(line) <= WIDTH else line[:WIDTH - 1] + "…" for line in "\n\n".join(parts).splitlines())
    text = "```\n" + "\n".join(shown) + "\n```\n"
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(BEGIN)
    (ROOT / "README.md").write_text(before + BEGIN + text + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
