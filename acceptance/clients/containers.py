"""Containers as platforms start phases in: the files of an image below a layer that is thrown away, with volumes. No daemon, no image is changed. As root."""

import subprocess
import tempfile

# The first arguments: the image's files, a folder to work in; then volumes, `--`, and the command.
INSIDE = """set -e
root=$2/root
mkdir -p "$root" "$2/upper" "$2/work"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$root"
shift 2
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    shift 2
done
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
exec chroot "$root" /usr/bin/env -i "$@"
"""


def run(files, volumes, env, command):
    """Runs a command in a container; gives exit code and what was printed. `volumes`: folder or file here -> there."""
    with tempfile.TemporaryDirectory(prefix="container-") as work:
        done = subprocess.run(words(files, work, volumes, env, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace")
        subprocess.run(["rm", "-rf", f"{work}/upper", f"{work}/work"], check=True)
    return done.returncode, done.stdout


def words(files, work, volumes, env, command):
    """The same as the words of a command; the empty folder `work` then holds what the container wrote."""
    mounts = [word for pair in volumes.items() for word in pair]
    variables = [f"{name}={value}" for name, value in env.items()]
    start = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE, "sh", files, work]
    return list(map(str, [*start, *mounts, "--", *variables, *command]))
