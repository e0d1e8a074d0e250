"""What is measured: the same files every time, made by this script or by pinned packages."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

# Packages without dependencies: together 31,760 files.
PACKAGES = [
    "@tabler/icons@3.51.0", "core-js@3.51.0", "date-fns@4.4.0", "lodash-es@4.18.1", "lodash@4.18.1",
    "lucide-static@1.62.0", "monaco-editor@0.52.2", "ramda@0.32.0", "three@0.187.0", "typescript@5.9.3",
]
PYTHON_PACKAGES = ["numpy==2.2.6", "pandas==2.2.3", "scipy==1.15.3", "django==5.2.1", "sympy==1.14.0", "botocore==1.38.23"]
BUILDPACK = "bench"
RUN_IMAGE = "index.docker.io/library/run/latest"
MIB = 1 << 20
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
WORDS = [random.Random(i).randbytes(1 + i % 6).hex() for i in range(500)]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def text(seed, size):
    """Text that deflates about as well as source code: words of a small vocabulary."""
    return " ".join(random.Random(seed).choices(WORDS, k=size // 3 + 1)).encode()[:size] if size else b""


class Build:
    """The folders of one build: layers with metadata, an app, the files of the phases before."""

    def __init__(self, dir):
        self.layers, self.app = dir / "layers", dir / "app"
        self.app.mkdir(parents=True)
        write(self.layers / "group.toml", f'[[group]]\nid = "{BUILDPACK}"\nversion = "1"\napi = "0.10"\n')
        write(self.layers / "config/metadata.toml",
              f'[[buildpacks]]\nid = "{BUILDPACK}"\nversion = "1"\napi = "0.10"\n')

    def layer(self, name):
        """A new layer for launch and cache."""
        path = self.layers / BUILDPACK / name
        path.mkdir(parents=True)
        write(path.with_name(name + ".toml"), "[types]\nlaunch = true\ncache = true\n")
        return path

    def folders(self):
        return [self.layers, self.app]

    def layer_dirs(self):
        return sorted(path for path in (self.layers / BUILDPACK).iterdir() if path.is_dir())


def node_app(dir, quick):
    """About 600 MB in 30,000 files: node_modules, shared libraries of the Rust toolchain, and an app."""
    build = Build(dir)
    modules, toolchain = build.layer("node_modules"), build.layer("toolchain")
    if quick:
        few_files(toolchain)
    else:
        sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
        for library in sorted(Path(sysroot, "lib").glob("*.so*")):
            shutil.copy(library, toolchain)
    install_node_modules(modules, quick)
    return with_sources(build, quick)


def small_files(dir, quick):
    """node_modules, and an app."""
    build = Build(dir)
    install_node_modules(build.layer("node_modules"), quick)
    return with_sources(build, quick)


def large_files(dir, quick):
    """A JDK: the first that is installed under /usr/lib/jvm, and an app."""
    build = Build(dir)
    jdk = build.layer("jdk")
    if quick:
        few_files(jdk)
    else:
        installed = sorted(path for path in Path("/usr/lib/jvm").glob("*") if (path / "lib/modules").exists())
        shutil.copytree(installed[0].resolve(), jdk, symlinks=True, dirs_exist_ok=True)
    return with_sources(build, quick)


def packages(dir, quick):
    """Python packages, and an app."""
    build = Build(dir)
    site = build.layer("site-packages")
    if quick:
        few_files(site)
    else:
        subprocess.run(["python3", "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, *PYTHON_PACKAGES], check=True)
    return with_sources(build, quick)


def of_folders(dir, layers, app):
    """Copies of these folders as layers, and of this one as the app."""
    build = Build(dir)
    for layer in layers:
        shutil.copytree(layer, build.layer(layer.resolve().name), symlinks=True, dirs_exist_ok=True)
    if app:
        shutil.copytree(app, build.app, symlinks=True, dirs_exist_ok=True)
    else:
        write(build.app / "app.txt", "app\n")
    return build


def install_node_modules(modules, quick):
    if quick:
        for i in range(300):
            write(modules / f"p{i % 20}/f{i}.js", text(i, 2000))
        return
    write(modules / "package.json", "{}\n")
    subprocess.run(["npm", "install", "--prefix", modules, "--no-save", "--ignore-scripts", "--no-audit", "--no-fund",
                    "--legacy-peer-deps", *PACKAGES], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def few_files(layer):
    write(layer / "lib.so", text(0, MIB))


def with_sources(build, quick):
    for i in range(20 if quick else 500):
        write(build.app / f"src/{i % 10}/{i}.js", text(i, 8000))
    return build


def one_file(dir, size, of):
    """One layer with one file: the files of another build, over and over."""
    build = Build(dir)
    path = build.layer("one") / "file"
    files = [file for file in sorted(of.layers.rglob("*")) if file.is_file() and not file.is_symlink()]
    with open(path, "wb") as to:
        while to.tell() < size:
            for file in files:
                to.write(file.read_bytes()[:size - to.tell()])
                if to.tell() >= size:
                    break
    return build


def many_files(dir, count, size):
    """One layer with many files of one size, at most 1,000 in a folder."""
    build = Build(dir)
    layer = build.layer("many")
    for i in range(count):
        if i % 1000 == 0:
            (layer / f"{i // 1000:03}").mkdir()
        with open(layer / f"{i // 1000:03}/{i % 1000:03}", "wb") as file:
            file.write(text(i, size))
    return build


def many_layers(dir, count, size):
    """Layers of one size, each with other bytes, in files of 1 MiB."""
    build = Build(dir)
    for i in range(count):
        layer = build.layer(f"layer{i}")
        for j in range(size // MIB):
            write(layer / f"{j}", text(i * 1000 + j, MIB))
    return build


def run_image(repository, size, given=None):
    """A run image as a layout: a copy of the given one, or of this many bytes in three layers."""
    layout = repository / RUN_IMAGE
    if given:
        shutil.copytree(given, layout, symlinks=True)
        image = json.loads((layout / "index.json").read_text())["manifests"][0]
        return layout, image["digest"], ARCHITECTURE
    (layout / "blobs/sha256").mkdir(parents=True)

    def blob(data, media_type):
        hex = hashlib.sha256(data).hexdigest()
        write(layout / "blobs/sha256" / hex, data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{hex}", "size": len(data)}

    layers, diff_ids = [], []
    for i in range(3):
        data = random.Random(i).randbytes(size // 3)
        file, tar = tarfile.TarInfo(f"usr/lib/{i}.bin"), io.BytesIO()
        file.size = len(data)
        with tarfile.open(fileobj=tar, mode="w") as archive:
            archive.addfile(file, io.BytesIO(data))
        diff_ids.append("sha256:" + hashlib.sha256(tar.getvalue()).hexdigest())
        layers.append(blob(gzip.compress(tar.getvalue(), 1, mtime=0), "layer.v1.tar+gzip"))
    arch = ARCHITECTURE
    config = {"architecture": arch, "os": "linux", "config": {"Env": ["PATH=/usr/bin:/bin"]},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [{"created_by": f"layer {i}"} for i in range(3)]}
    config = blob(json.dumps(config).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
    manifest = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": [manifest | {"platform": {"architecture": arch, "os": "linux"}}]}
    write(layout / "index.json", json.dumps(index))
    write(layout / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    for path in [layout, *layout.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return layout, manifest["digest"], arch
