"""Images as values: the tree of files that layers come to, and the configuration. Read from layouts and from what `skopeo copy … dir:` writes;
written as layouts. Nothing is unpacked: what a layer says counts, and not what this machine's file system makes of it.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import subprocess
import tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar"
KINDS = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link",
         tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "character device", tarfile.BLKTYPE: "block device"}
XATTR = "SCHILY.xattr."


@dataclasses.dataclass(eq=False)
class File:
    """A file of any kind; two hard links are the same object."""
    kind: str
    mode: str
    owner: str
    contents: str
    xattrs: dict
    time: int


@dataclasses.dataclass
class Image:
    config: dict
    layers: int
    tree: dict
    faults: list

    def links(self):
        """How many names each file has, by its identity."""
        counts = {}
        for file in self.tree.values():
            counts[id(file)] = counts.get(id(file), 0) + 1
        return counts


def read(dir, known):
    """The image in a folder. `known` keeps the entries of layers, by diff ID."""
    is_layout = (dir / "index.json").is_file()
    blob = lambda digest: dir / (f"blobs/{digest.replace(':', '/')}" if is_layout else digest.split(":")[1])
    if is_layout:
        listed = json.loads((dir / "index.json").read_text())["manifests"]
        manifest = json.loads(blob(next(entry for entry in listed if "artifactType" not in entry)["digest"]).read_text())
    else:
        manifest = json.loads((dir / "manifest.json").read_text())
    config = json.loads(blob(manifest["config"]["digest"]).read_text())
    image = Image(config, len(manifest["layers"]), {}, [])
    for diff_id, layer in zip(config["rootfs"]["diff_ids"], manifest["layers"], strict=True):
        if diff_id not in known:
            known[diff_id] = list(entries(blob(layer["digest"])))
        apply(image, known[diff_id])
    return image


def blobs(dir):
    """The bytes of each blob of a layout, without their compression."""
    for blob in sorted(dir.glob("blobs/sha256/*")):
        with decompressed(blob) as stream:
            yield blob.name, stream.read()


def decompressed(blob):
    with open(blob, "rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(blob)
    if magic == b"\x28\xb5\x2f\xfd":
        return subprocess.Popen(["zstd", "-dcq", blob], stdout=subprocess.PIPE).stdout
    return open(blob, "rb")


def entries(blob):
    """The entries of a layer: path, file, and for a hard link what it is a link to."""
    with decompressed(blob) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = clean(member.name)
            if member.islnk():
                yield path, None, clean(member.linkname)
                continue
            contents = ""
            if member.issym():
                contents = member.linkname
            elif member.isreg():
                contents = hashlib.file_digest(archive.extractfile(member), "sha256").hexdigest()[:16] + f" {member.size} bytes"
            elif member.ischr() or member.isblk():
                contents = f"{member.devmajor}:{member.devminor}"
            xattrs = {name[len(XATTR):]: value for name, value in member.pax_headers.items() if name.startswith(XATTR)}
            mode = "" if member.issym() else f"{member.mode & 0o7777:04o}"
            yield path, File(KINDS[member.type], mode, f"{member.uid}:{member.gid}", contents, xattrs, int(member.mtime)), None


def clean(name):
    path = os.path.normpath(name.lstrip("/"))
    return "" if path == "." else path


def apply(image, layer):
    """What a layer makes of an image: what it hides goes first."""
    tree = image.tree
    for path, _, _ in layer:
        parent, name = os.path.split(path)
        if name == ".wh..wh..opq":
            remove(tree, parent, itself=False)
        elif name.startswith(".wh."):
            hidden = os.path.join(parent, name[len(".wh."):])
            if hidden not in tree:
                image.faults.append(f"/{hidden} is hidden and was not there")
            remove(tree, hidden)
    for path, file, target in layer:
        parent, name = os.path.split(path)
        if name.startswith(".wh."):
            continue
        if path and parent and getattr(tree.get(parent), "kind", None) != "folder":
            image.faults.append(f"/{path} is in no folder")
        if target is not None:
            file = tree.get(target)
            if file is None:
                image.faults.append(f"/{path} is a hard link to /{target}, which is not there")
                continue
        if path in tree and not (file.kind == tree[path].kind == "folder"):
            remove(tree, path)
        tree[path] = file


def remove(tree, path, itself=True):
    """Removes what is in a folder, and the folder or file itself."""
    below = path + "/" if path else ""
    if path not in tree or tree[path].kind == "folder":
        for name in [name for name in tree if name.startswith(below) and name]:
            del tree[name]
    if itself:
        tree.pop(path, None)


def write_layout(dir, name, root, config, created="2024-01-01T00:00:00Z"):
    """Writes a folder of files as an image of one layer, with this configuration of containers, as a layout."""
    blobs = dir / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    tar = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sort=name", "--format=posix", "-C", root, "-cf", blobs / "layer", "."]
    subprocess.run(tar, check=True)
    with open(blobs / "layer", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    (blobs / "layer").rename(blobs / digest)
    layer = {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": (blobs / digest).stat().st_size}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    image = {"created": created, "architecture": machine, "os": "linux", "config": config,
             "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}, "history": [{"created": created, "created_by": f"the files of {name}"}]}
    kind = "application/vnd.oci.image."
    manifest = {"schemaVersion": 2, "mediaType": f"{kind}manifest.v1+json",
                "config": put(json.dumps(image).encode(), f"{kind}config.v1+json"), "layers": [layer]}
    entry = put(json.dumps(manifest).encode(), f"{kind}manifest.v1+json")
    entry |= {"platform": {"os": "linux", "architecture": machine}, "annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (dir / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": f"{kind}index.v1+json", "manifests": [entry]}))
    (dir / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def config_of(layout):
    """The digest of a layout's only image, and its configuration."""
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
    return entry["digest"], json.loads((layout / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text())


def write_sparse(layout, dir):
    """The same image without its layers, in a folder that is called after its digest: what platforms give to extenders."""
    digest, _ = config_of(layout)
    manifest = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
    to = dir / digest
    for name in ["index.json", "oci-layout", *(f"blobs/{it.replace(':', '/')}" for it in (digest, manifest["config"]["digest"]))]:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes((layout / name).read_bytes())
    return digest
