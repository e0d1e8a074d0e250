# Run in a mount namespace of its own: in_root.sh ROOT PROJECT EXECUTABLES COMMAND…
# Runs COMMAND with the folder ROOT as the root of the file system, as in a container of the image that lies there. PROJECT and
# EXECUTABLES are mounts at their own paths, as volumes are; so are the libraries that the executables need.
set -e
umask 022
root=$1 project=$2 executables=$3
shift 3
for dir in "$project" "$executables" /proc /dev /usr/lib; do
    mkdir -p "$root$dir"
    mount --rbind "$dir" "$root$dir"
done
for dir in lib lib64; do
    if [ -L "/$dir" ]; then ln -sfn "$(readlink "/$dir")" "$root/$dir"; fi
done
if [ -d /usr/lib64 ]; then
    mkdir -p "$root/usr/lib64"
    mount --bind /usr/lib64 "$root/usr/lib64"
fi
if [ -d "$project/kaniko" ]; then
    mkdir -p "$root/kaniko"
    mount --bind "$project/kaniko" "$root/kaniko"
fi
# What is made does not depend on it.
umask 077
exec /usr/sbin/chroot "$root" "$@"
