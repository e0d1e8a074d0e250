#!/bin/sh
# Builds the executables and, with them, an app image in a local layout repository; then starts the app.
# usage: ./demo.sh [folder], by default ./out. Needs no root. What the folder held before is reused as by any rebuild.
set -eu
cd "$(dirname "$0")"
out=${1:-out}
if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust 1.95 or later (https://rustup.rs), and a C compiler" >&2
    exit 1
fi
cargo build --release --package drydock --bin creator
cargo build --release --manifest-path cmd/launcher/Cargo.toml --target-dir target

mkdir -p "$out/layout-repo" "$out/workspace" "$out/cache" "$out/platform"
out=$(cd "$out" && pwd)
rm -rf "$out/layers" "$out/process"
mkdir -p "$out/layers" "$out/process"
cp -R layout-repo-example/index.docker.io "$out/layout-repo/"
cp -R acceptance/sample/app/. "$out/workspace/"

export CNB_PLATFORM_API=0.14 CNB_USE_OCI_LAYOUT=true CNB_OCI_LAYOUT_PATH="$out/layout-repo"
set -x
target/release/creator \
    -run-image cnb/my-full-stack-run:bionic \
    -app "$out/workspace" -layers "$out/layers" -platform "$out/platform" -cache-dir "$out/cache" \
    -buildpacks acceptance/sample/cnb/buildpacks -order acceptance/sample/cnb/order.toml \
    -launcher target/release/launcher \
    my-app-image
set +x

image=index.docker.io/library/my-app-image/latest
printf '\nThe image, in %s:\n' "$out/layout-repo"
(cd "$out/layout-repo" && find "$image" -type f | sort)
printf '\nIts layers, lowest first, each with the last things in it:\n'
blobs=$out/layout-repo/$image/blobs/sha256
manifest=$(sed -n 's/.*"digest": *"sha256:\([0-9a-f]*\)".*/\1/p' "$out/layout-repo/$image/index.json")
# In a manifest, the first digest is that of the configuration.
for layer in $(tr ',' '\n' <"$blobs/$manifest" | sed -n 's/.*"digest":"sha256:\([0-9a-f]*\)".*/\1/p' | tail -n +2); do
    echo "  sha256:$layer"
    tar -tzPf "$blobs/$layer" | tail -n 3 | sed 's/^/      /'
done
printf '\nThe app, started by the launcher:\n'
ln -sf "$PWD/target/release/launcher" "$out/process/web"
CNB_LAYERS_DIR="$out/layers" CNB_APP_DIR="$out/workspace" "$out/process/web"
