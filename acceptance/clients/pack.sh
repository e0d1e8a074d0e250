#!/bin/bash
# Has pack build app images with our lifecycle into OCI layouts, and starts them. README.md beside this file tells more.
# usage, as root: PACK=<path of a pack executable> bash acceptance/clients/pack.sh
set -euo pipefail

readonly USER_ID=12345 # An ordinary user, of whom nobody here has heard.
readonly REGISTRY=127.0.0.1
readonly BUILDER=$REGISTRY/drydock/builder:1 OURS=$REGISTRY/drydock/ours:1 RUN=$REGISTRY/drydock/run:1 LIFECYCLE=$REGISTRY/drydock/lifecycle:1
readonly GREETING="Hello from an app that pack built"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command, whose output is of interest only if it fails: then all of it is printed.
quietly() {
    local log=$dir/log
    "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "this failed: $*"
    }
}

# $1 seconds at most until the other words, a command, succeed.
wait_for() {
    local left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$left" -gt 0 ] || return 1
        sleep 1
        left=$((left - 1))
    done
}

#--- outside: a temporary folder, and namespaces that end with everything in them

cgroup=drydock-pack-$$ inside='' dir=''

outside() {
    [ "$(id -u)" = 0 ] || fail "dockerd needs root: run this as root"
    [ -x "${PACK:-}" ] || fail "PACK must name a pack executable: it is \`${PACK:-}\`"
    local tool package
    while read -r tool package; do
        command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install $package"
    done <<-TOOLS
		busybox busybox-static
		docker docker.io
		dockerd docker.io
		docker-registry docker-registry
		runc runc
		setpriv util-linux
		skopeo skopeo
		umoci umoci
		unshare util-linux
	TOOLS
    local workspace packed
    workspace=$(cd "$(dirname "$0")/../.." && pwd)
    packed=$(cargo run --quiet --manifest-path "$workspace/Cargo.toml" -p drydock-package | tail -n 2)
    dir=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 1' HUP INT TERM
    chmod 755 "$dir"
    cargo build --quiet --release --manifest-path "$workspace/Cargo.toml" --package drydock-cli
    install -m 755 "$PACK" "$dir/pack"
    install -m 755 "$(dirname "${packed%%$'\n'*}")/release/drydock" "$dir"
    install -m 644 $packed "$dir"
    unshare --net --mount --pid --fork --kill-child --mount-proc \
        env -i PATH="$PATH" TMPDIR="${TMPDIR:-/tmp}" ROUNDS="${ROUNDS:-}" DRIVER="${DRIVER:-}" bash "$0" --inside "$dir" "$cgroup" &
    inside=$!
    wait $inside
}

clean_up() {
    # With it end all processes inside, and with these all mounts.
    [ -z "$inside" ] || kill -KILL "$inside" 2>/dev/null || true
    wait
    wait_for 10 rm -rf "$dir" || echo "error: $dir is left" >&2
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} +
}

#--- inside: a network of loopback alone, with a registry at port 80 (pack's mounts allow no port in a name)

inside() {
    dir=$1
    busybox ip link set lo up
    start_registry
    start_docker "$2"
    make_images
    trade
    [ -z "${ROUNDS:-}" ] || bench
    build_and_start 0 022 "own trusted" --builder "$OURS" --trust-builder
    local umask
    for umask in 022 077; do
        for user in 0 $USER_ID; do
            build_and_start "$user" "$umask" trusted --trust-builder
            build_and_start "$user" "$umask" untrusted --lifecycle-image "$LIFECYCLE"
        done
    done
}

start_registry() {
    cat >"$dir/registry.yml" <<-CONFIG
		version: 0.1
		storage: {filesystem: {rootdirectory: $dir/registry}}
		http: {addr: "$REGISTRY:80"}
	CONFIG
    docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
    wait_for 20 busybox wget -q -O - "http://$REGISTRY/v2/" || fail "no registry: $(tail -n 5 "$dir/registry.log")"
}

start_docker() {
    local cgroup=$1
    export DOCKER_HOST=unix://$dir/docker.sock DOCKER_CONFIG=$dir/docker-config
    echo '{}' >"$dir/daemon.json"
    dockerd --config-file "$dir/daemon.json" --host "$DOCKER_HOST" --pidfile "$dir/docker.pid" \
        --data-root "$dir/docker" --exec-root "$dir/docker-run" --storage-driver "${DRIVER:-vfs}" --cgroup-parent "$cgroup" \
        --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
        >"$dir/docker.log" 2>&1 &
    wait_for 60 docker version || fail "no docker engine: $(tail -n 5 "$dir/docker.log")"
    chgrp $USER_ID "$dir/docker.sock"
    chmod 660 "$dir/docker.sock"
}

# Build image and run image are one user land; the builder has one buildpack.
make_images() {
    local root=$dir/root bin=$dir/buildpack/bin program
    mkdir -p "$root"/{bin,etc,home/cnb,tmp} "$bin" "$dir/app"
    chmod 1777 "$root/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for program in cat chmod mkdir sh; do
        ln -s busybox "$root/bin/$program"
    done
    printf '%s\n' root:x:0:0:root:/root:/bin/sh cnb:x:1000:1000:cnb:/home/cnb:/bin/sh >"$root/etc/passwd"
    printf '%s\n' root:x:0: cnb:x:1000: >"$root/etc/group"
    printf '%s\n' ID=tiny VERSION_ID=1 >"$root/etc/os-release"
    tar -C "$root" --owner 0 --group 0 -cf "$dir/root.tar" .
    quietly docker import --change 'ENV CNB_USER_ID=1000 CNB_GROUP_ID=1000 PATH=/bin' --change 'USER 1000:1000' \
        --change 'LABEL io.buildpacks.base.distro.name=tiny io.buildpacks.base.distro.version=1' "$dir/root.tar" "$RUN"
    quietly docker push "$RUN"
    quietly skopeo copy --dest-tls-verify=false "oci-archive:$(echo "$dir"/lifecycle-*.oci.tar)" "docker://$LIFECYCLE"

    cat >"$dir/buildpack/buildpack.toml" <<-TOML
		api = "0.10"
		[buildpack]
		id = "drydock/hello"
		version = "1.0.0"
		[[targets]]
		os = "linux"
	TOML
    printf '#!/bin/sh\n' >"$bin/detect"
    cat >"$bin/build" <<-'BUILD'
		#!/bin/sh
		set -eu
		layer=$CNB_LAYERS_DIR/greeter
		if [ -x "$layer/bin/greet" ]; then
		    echo "The greeter came back"
		else
		    echo "Making a greeter"
		    mkdir -p "$layer/bin"
		    printf '#!/bin/sh\necho "Hello from $(cat name)"\n' >"$layer/bin/greet"
		    chmod 755 "$layer/bin/greet"
		fi
		printf '[types]\nlaunch = true\ncache = true\n[metadata]\nversion = 1\n' >"$layer.toml"
		printf '[[processes]]\ntype = "web"\ncommand = ["greet"]\ndefault = true\n' >"$CNB_LAYERS_DIR/launch.toml"
	BUILD
    chmod 755 "$bin"/*
    echo "${GREETING#Hello from }" >"$dir/app/name"
    make_builder "$BUILDER" "$(echo "$dir"/lifecycle-*.tgz)"
    # Builder tools take the lifecycle out of its image, too.
    make_builder "$REGISTRY/drydock/other-builder:1" "docker://$LIFECYCLE"
}

make_builder() {
    cat >"$dir/builder.toml" <<-TOML
		[[buildpacks]]
		uri = "buildpack"
		[[order]]
		[[order.group]]
		id = "drydock/hello"
		version = "1.0.0"
		[build]
		image = "$RUN"
		[[run.images]]
		image = "$RUN"
		[lifecycle]
		uri = "$2"
	TOML
    quietly as 0 022 "$dir/pack" builder create "$1" --config "$dir/builder.toml" --pull-policy never
    quietly docker push "$1"
}

# Builders and packages that drydock makes are pack's, and the other way round.
trade() {
    export CNB_OCI_LAYOUT_PATH=$dir/repository XDG_CACHE_HOME=$dir/cache
    printf '[host."%s"]\nplain-http = true\n' "$REGISTRY" >"$dir/sources.toml"
    local image maker printed
    for image in "$RUN" "$BUILDER"; do
        quietly "$dir/drydock" --sources "$dir/sources.toml" import "docker://$image"
    done
    "$dir/drydock" builder inspect "$BUILDER" | grep -qF "drydock/hello 1.0.0" || fail "what pack made is no builder"
    tar -C "$dir" -xf "$(echo "$dir"/lifecycle-*.tgz)"
    quietly "$dir/drydock" build traded --builder "$BUILDER" --path "$dir/app" --network none
    printed=$("$dir/drydock" run traded --network none)
    [ "$printed" = "$GREETING" ] || fail "the app that drydock built by a builder of pack's printed \`$printed\`"
    quietly as 0 022 "$dir/pack" buildpack package "$dir/pack.cnb" --format file --path "$dir/buildpack" --target linux/amd64
    quietly "$dir/drydock" buildpack package "$dir/buildpack" --output "$dir/drydock.cnb"
    for maker in pack drydock; do
        sed -i -e "s,^uri = \".*buildpack\"\|^uri = \".*\.cnb\",uri = \"$maker.cnb\"," \
            -e "s,^uri = \"docker:.*,uri = \"$(echo "$dir"/lifecycle-*.tgz)\"," "$dir/builder.toml"
        quietly "$dir/drydock" builder create "$OURS" --config "$dir/builder.toml"
        quietly as 0 022 "$dir/pack" builder create "$REGISTRY/drydock/theirs:1" --config "$dir/builder.toml" \
            --pull-policy never
    done
    quietly "$dir/drydock" --sources "$dir/sources.toml" export "$OURS" "docker://$OURS"
    quietly docker pull "$OURS"
    quietly as 0 022 "$dir/pack" builder inspect "$OURS"
    grep -qF "drydock/hello@1.0.0" "$dir/log" || fail "pack says of a builder of drydock's: $(cat "$dir/log")"
    echo "ok: builders and packages of pack and drydock are each other's"
}

# What builds by pack and by drydock take.
bench() {
    python3 "$(dirname "$0")/../bench/builds.py" --rounds "$ROUNDS" --drydock "$dir/drydock" --executables "$dir/lifecycle" --dir "$dir" \
        --pack "$dir/pack" --builder "$BUILDER" --lifecycle-image "$LIFECYCLE"
}

# $1 a user, $2 an umask, then the command.
as() {
    local user=$1 home=$dir/home-$1 umask=$2
    shift 2
    if [ ! -d "$home" ]; then
        mkdir "$home"
        chown "$user:$user" "$home"
        as "$user" 077 "$dir/pack" config experimental true >"$dir/log"
    fi
    (
        umask "$umask"
        cd "$home"
        HOME=$home PACK_HOME=$home/.pack exec setpriv --reuid "$user" --regid "$user" --clear-groups timeout 300 "$@"
    )
}

# $1 a user, $2 his umask, $3 words for the flags that come then.
build_and_start() {
    local user=$1 umask=$2 image=app-$2-${3%% *} what="user $1, umask $2, $3 builder" run
    shift 3
    for run in first second; do
        as "$user" "$umask" "$dir/pack" build "oci:$image" --builder "$BUILDER" "$@" --path "$dir/app" --network host \
            --verbose >"$dir/$run.log" 2>&1 || {
            cat "$dir/$run.log" >&2
            fail "$what: the $run build failed"
        }
    done
    says "$what" first "Making a greeter" "Adding layer 'drydock/hello:greeter'"
    says "$what" second "The greeter came back" "Reusing layer 'drydock/hello:greeter'" "Reused 1/1 app layer(s)"
    [ "$(digest first)" = "$(digest second)" ] || fail "$what: the second image is another: $(digest second)"

    quietly as "$user" 022 skopeo inspect "oci:$image:latest"
    start "$dir/home-$user/$image" "$what"
    echo "ok: $what: built, reused, started"
}

# $1 what it is about, $2 which build, then what its log must say.
says() {
    local what=$1 run=$2 text
    shift 2
    for text in "$@"; do
        grep -qF "$text" "$dir/$run.log" || {
            cat "$dir/$run.log" >&2
            fail "$what: the $run build does not say \`$text\`"
        }
    done
}

# The manifest's digest, as a build's log has it.
digest() {
    sed -n 's/.*\*\*\* Digest: //p' "$dir/$1.log"
}

# Starts the image in the layout $1; $2 is what it is about.
start() {
    local bundle=$dir/bundle printed
    rm -rf "$bundle"
    quietly umoci unpack --image "$1:latest" "$bundle"
    sed -i 's/"terminal": true/"terminal": false/' "$bundle/config.json"
    printed=$(runc --root "$dir/runc" run --bundle "$bundle" "drydock-pack-$$" 2>&1 </dev/null) ||
        fail "$2: the app's process failed: $printed"
    [ "$printed" = "$GREETING" ] || fail "$2: the app's process printed \`$printed\`"
}

case ${1:-} in
--inside) inside "$2" "$3" ;;
'') outside ;;
*) fail "usage: PACK=<path of a pack executable> bash $0" ;;
esac
