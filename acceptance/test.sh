#!/bin/bash
# Runs every check: format, lints, all tests. `bash acceptance/test.sh`, as root or as an ordinary user.
# With CI=true, and as root, it installs the Debian packages that are missing; otherwise it says which they are.
# Goes on after a failure, lists what failed, and exits with 1 if anything did.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(gcc libc6-dev util-linux tar skopeo umoci buildah golang-github-containers-common busybox-static pigz python3 strace zstd git docker-registry openssl ca-certificates crun runc uidmap passt slirp4netns)

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
done
# Any version does, from wherever it was installed.
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "${CI:-}" != true ] || [ "$(id -u)" != 0 ]; then
        echo "error: packages are missing: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "== apt-get install ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --no-install-recommends -o=Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
fi

command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
if ! command -v cargo >/dev/null; then
    echo "error: cargo is missing: install Rust with rustfmt and clippy, see https://rustup.rs" >&2
    exit 1
fi

failed=()
check() {
    echo "== $*"
    # Tests send signals, which a shell without job control has its background ignore.
    env --default-signal=HUP,INT,QUIT "$@" || failed+=("$*")
}

# The launcher is a workspace of its own, and shares the target folder.
for workspace in Cargo.toml cmd/launcher/Cargo.toml; do
    check cargo fmt --manifest-path "$workspace" --all --check
    check cargo clippy --quiet --manifest-path "$workspace" --target-dir target --workspace --all-targets -- --deny warnings
    check cargo test --quiet --manifest-path "$workspace" --target-dir target --workspace --no-fail-fast
done

# Known faults of dependencies, as rustsec.org has them; what was yanked is looked for in the tests.
advisories=https://github.com/rustsec/advisory-db
if ! GIT_TERMINAL_PROMPT=0 timeout 60 git ls-remote --quiet "$advisories" HEAD >/dev/null 2>&1; then
    unchecked="$advisories cannot be reached"
elif ! cargo audit --version >/dev/null 2>&1 && { [ "${CI:-}" != true ] || ! cargo install --quiet --locked cargo-audit; }; then
    unchecked="cargo-audit is missing: cargo install --locked cargo-audit"
else
    for lock in Cargo.lock cmd/launcher/Cargo.lock acceptance/libcnb-buildpack/Cargo.lock; do
        check cargo audit --deny unsound --file "$lock"
    done
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf '== failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "== all checks passed${unchecked:+, but advisories were not looked for: $unchecked}"
