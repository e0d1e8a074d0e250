#!/bin/bash
# Has docker and podman load what drydock exports, and imports what docker saves. README.md beside this file tells more.
# usage, as root: bash acceptance/clients/load.sh
set -euo pipefail

readonly NAME=acme/tool:v1 GREETING="hello from a loaded image"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

outside() {
    [ "$(id -u)" = 0 ] || fail "dockerd needs root: run this as root"
    local tool
    for tool in busybox docker dockerd unshare; do
        command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install busybox-static docker.io util-linux"
    done
    local workspace dir
    workspace=$(cd "$(dirname "$0")/../.." && pwd)
    cargo build --quiet --manifest-path "$workspace/Cargo.toml" -p drydock-cli
    dir=$(mktemp -d)
    # With the first process inside end all others, and with these all mounts.
    unshare --net --mount --pid --fork --kill-child --mount-proc \
        env -i PATH="$PATH" HOME="$dir" bash "$0" --inside "$dir" "$workspace/target/debug/drydock" && code=0 || code=$?
    rm -rf "$dir"
    exit $code
}

inside() {
    local dir=$1 drydock=$2
    cd "$dir"
    export CNB_OCI_LAYOUT_PATH=$dir/repository DOCKER_HOST=unix://$dir/docker.sock
    ip link set lo up 2>/dev/null || true
    dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" -H "$DOCKER_HOST" \
        --bridge=none --iptables=false --ip6tables=false --storage-driver=vfs >"$dir/log" 2>&1 &
    for _ in $(seq 60); do
        docker version >/dev/null 2>&1 && break
        sleep 1
    done
    docker version >/dev/null || fail "dockerd does not start: $(tail -n 5 "$dir/log")"

    mkdir -p root/bin
    cp "$(command -v busybox)" root/bin/busybox
    ln root/bin/busybox root/bin/cat
    echo "$GREETING" >root/motd
    "$drydock" -q import rootfs:root $NAME
    "$drydock" -q export $NAME docker-archive:tool.tar
    docker load --input tool.tar
    "$drydock" -q export $NAME docker-archive:- | docker load
    [ "$(docker run --rm --network none $NAME /bin/cat /motd)" = "$GREETING" ] || fail "the image does not start"

    docker save --output saved.tar $NAME
    "$drydock" -q import docker-archive:saved.tar back:v1
    "$drydock" -q diff $NAME back:v1 || fail "what docker saved is another image"
    docker save $NAME | gzip >saved.tar.gz
    "$drydock" -q import docker-archive:saved.tar.gz back:v2
    "$drydock" -q diff $NAME back:v2 || fail "what docker saved is another image"
    "$drydock" -q verify

    if command -v podman >/dev/null; then
        local podman=(podman --root "$dir/podman" --runroot "$dir/run" --storage-driver vfs --cgroup-manager cgroupfs)
        "${podman[@]}" load --input tool.tar
        "${podman[@]}" save --format docker-archive --output podman.tar $NAME
        "$drydock" -q import docker-archive:podman.tar back:v3
        "$drydock" -q diff $NAME back:v3 || fail "what podman saved is another image"
    else
        echo "without podman: apt-get install podman"
    fi
    echo "all loaded"
}

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
else
    outside
fi
