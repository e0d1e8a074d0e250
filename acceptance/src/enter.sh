# Run in a mount namespace of its own: enter.sh ROOT EXECUTABLES COMMAND…
# Makes the folder ROOT the root of the file system and runs COMMAND there. The scenario's trees are mounts of their
# own, as volumes are in a build container; the system's own folders are this machine's, and cannot be written.
set -e
umask 022
root=$1 executables=$2
shift 2

for tree in cnb layers workspace platform cache launch-cache layout-repo; do
    mount --bind "$root/$tree" "$root/$tree"
done
mount --bind -o ro "$executables" "$root/cnb/lifecycle"

for dir in usr bin sbin lib lib32 lib64 libx32 etc; do
    if [ -L "/$dir" ]; then
        [ -L "$root/$dir" ] || cp -P "/$dir" "$root/$dir"
    elif [ -d "/$dir" ]; then
        mkdir -p "$root/$dir"
        mount --rbind -o ro "/$dir" "$root/$dir"
    fi
done
for dir in proc dev; do
    mkdir -p "$root/$dir"
    mount --rbind "/$dir" "$root/$dir"
done
mkdir -p -m 1777 "$root/tmp"

exec chroot "$root" "$@"
