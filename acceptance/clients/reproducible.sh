#!/bin/bash
# Packs the lifecycle here, and once more from a copy of the sources: in another folder, with another target folder outside
# of it, another home, locale, time zone and umask, and without a network. Both must be the same bytes.
# usage: bash acceptance/clients/reproducible.sh [an empty folder for the copy; by default a temporary one, which is kept]
set -euo pipefail
cd "$(dirname "$0")/../.."

home=${CARGO_HOME:-$HOME/.cargo}
export RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
work=${1:-$(mktemp -d)/somewhere-else}
mkdir -p "$work/sources" "$work/home/cargo"

# All that it will take: the second build can fetch nothing.
for manifest in Cargo.toml cmd/launcher/Cargo.toml; do cargo fetch --quiet --locked --manifest-path "$manifest"; done
cp -a "$home/registry" "$work/home/cargo/registry"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -c | tar -x -C "$work/sources"

echo "== here"
here=$(cargo run --quiet --locked --package drydock-package | tail -n 2)

echo "== in $work, without a network"
there=$(
    umask 077
    cd "$work/sources"
    env HOME="$work/home" CARGO_HOME="$work/home/cargo" CARGO_TARGET_DIR="$work/target" CARGO_NET_OFFLINE=true \
        LC_ALL=C.UTF-8 TZ=Pacific/Chatham TMPDIR="$work" \
        unshare --map-root-user --net cargo run --quiet --locked --package drydock-package | tail -n 2
)

status=0
while read -r one && read -r other <&3; do
    sha256sum "$one" "$other"
    cmp "$one" "$other" || status=1
done <<<"$here" 3<<<"$there"
[ $status = 0 ] && echo "== the same bytes"
exit $status
