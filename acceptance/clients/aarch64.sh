#!/bin/bash
# Builds everything for aarch64, and runs the tests of oci/*, spec and the launcher by QEMU's user emulation.
# usage: bash acceptance/clients/aarch64.sh
# It must run as root, on Linux 6.7 or later: the kernel is told to have QEMU run executables for aarch64 in a user
# namespace, and nowhere else.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=aarch64-unknown-linux-gnu

inside() {
    local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    printf '%s' ":aarch64:M::$magic:$mask:$(command -v qemu-aarch64):FP" >/proc/sys/fs/binfmt_misc/register
    # As what ships is. Where QEMU is told of libraries, it looks for everything there first.
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS=-Ctarget-feature=+crt-static
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    cargo() { echo "== cargo $*" && command cargo "$@"; }

    # QEMU has no limit of address space and no openat2, and its own memory counts.
    local not=(memory_is_bounded threads_that_cannot_be_had a_long_way_is_few_steps)
    cargo test --locked --target $target --no-fail-fast --package=drydock-{model,io,encode,tar,layout,spec} \
        -- "${not[@]/#/--skip=}"
    local launcher=(--manifest-path cmd/launcher/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}" --workspace)
    cargo test --locked --target $target --no-fail-fast "${launcher[@]}"
    cargo test --locked --target $target --no-fail-fast "${launcher[@]}" --release

    cargo run --locked --target $target --release --package drydock --bin lifecycle -- -version
    cargo run --locked --target $target --release --package drydock-cli -- --version
    cargo check --locked --target $target --workspace --all-targets
}

if [ "${1:-}" = --inside ]; then
    inside
    exit
fi
packages="gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user util-linux"
dpkg-query --show $packages >/dev/null || { echo "error: packages are missing: apt-get install $packages" >&2 && exit 1; }
rustup target add $target
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
mkfifo "$work/made" "$work/mapped"
unshare --user --mount --propagation private bash -c \
    'echo >"$1/made" && read -r <"$1/mapped"; exec bash "$2" --inside' bash "$work" "$0" &
# The namespace has this one's users, which only who made it may say.
read -r <"$work/made" || true
for ids in uid gid; do echo 0 0 65536 >"/proc/$!/${ids}_map"; done
echo >"$work/mapped"
wait $!
