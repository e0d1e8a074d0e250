#!/bin/sh
# Builds the executables; with them makes a builder, an app image by it in a local layout repository, and starts the app. Where no
# sandbox can be had, it says why, and does the same by the phases alone.
# usage: ./demo.sh [folder], by default ./out. Needs no root. What the folder held before is reused as by any rebuild.
set -eu
cd "$(dirname "$0")"
out=${1:-out}
if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust 1.95 or later (https://rustup.rs), and a C compiler" >&2
    exit 1
fi
cargo run --quiet --package drydock-package
cargo build --release --package drydock-cli

mkdir -p "$out/layout-repo" "$out/cache"
out=$(cd "$out" && pwd)
rm -rf "$out/builder"
cp -R layout-repo-example/index.docker.io "$out/layout-repo/"
cp -R acceptance/sample/builder "$out/builder"
# One static program is the whole buildpack: the sample's images hold no shell.
mkdir "$out/builder/greeter/bin"
rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols \
    -o "$out/builder/greeter/bin/build" "$out/builder/greeter/main.rs"
ln -f "$out/builder/greeter/bin/build" "$out/builder/greeter/bin/detect"
rm "$out/builder/greeter/main.rs"
rm -rf "$out/bin"
mkdir "$out/bin"
cp target/release/drydock "$out/bin/"
tar -xzf target/lifecycle-*.tgz -C "$out/bin"

export CNB_OCI_LAYOUT_PATH="$out/layout-repo" XDG_CACHE_HOME="$out/cache" PATH="$out/bin:$PATH"
set -x
drydock builder create acme/builder --config "$out/builder/builder.toml"
if drydock build my-app-image --builder acme/builder --path acceptance/sample/app --network none; then
    drydock ls
    drydock run my-app-image --network none
    exit
fi
set +x
printf '\nNo sandbox can be had here, or not yet: see the line above. The same by the phases alone:\n'

mkdir -p "$out/workspace" "$out/platform" "$out/phases-cache"
rm -rf "$out/layers" "$out/process"
mkdir -p "$out/layers" "$out/process" "$out/buildpacks/sample_greeter"
rm -rf "$out/buildpacks/sample_greeter/0.1.0"
cp -R "$out/builder/greeter" "$out/buildpacks/sample_greeter/0.1.0"
cp -R acceptance/sample/app/. "$out/workspace/"
printf '[[order]]\n[[order.group]]\nid = "sample/greeter"\nversion = "0.1.0"\n' >"$out/order.toml"
export CNB_PLATFORM_API=0.14 CNB_USE_OCI_LAYOUT=true
set -x
target/dist/creator \
    -run-image cnb/my-full-stack-run:bionic \
    -app "$out/workspace" -layers "$out/layers" -platform "$out/platform" -cache-dir "$out/phases-cache" \
    -buildpacks "$out/buildpacks" -order "$out/order.toml" -launcher target/dist/launcher \
    my-app-image
drydock ls
set +x
printf '\nThe app, started by the launcher:\n'
ln -sf "$PWD/target/dist/launcher" "$out/process/web"
CNB_LAYERS_DIR="$out/layers" CNB_APP_DIR="$out/workspace" "$out/process/web"
