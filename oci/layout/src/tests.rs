//! Layouts written by hand, read, written and damaged.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use drydock_io::file::TempFile;
use drydock_model::config::ImageConfig;
use drydock_model::digest::DiffId;
use drydock_model::manifest::{Annotations, Descriptor};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};

struct Repository {
    temp: TempDir,
    dir: LayoutDir,
}

impl Repository {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = LayoutDir::new(temp.path()).unwrap();
        Self { temp, dir }
    }

    fn path(&self, name: &str) -> LayoutPath {
        self.dir.resolve(name).unwrap()
    }

    fn put_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let dir = blobs_dir(self.path(name).path());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(digest.hex()), bytes).unwrap();
        digest
    }

    /// An image of one layer; returns the manifest's descriptor.
    fn put_image(&self, name: &str, architecture: &str, layer: &[u8], docker: bool) -> Json {
        let (manifest_type, config_type, layer_type) = if docker {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar",
            )
        } else {
            (media::MANIFEST, media::CONFIG, media::LAYER)
        };
        let layer_digest = self.put_blob(name, layer);
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Healthcheck": {"Test": []}},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]}});
        let config = serde_json::to_vec(&config).unwrap();
        let config_digest = self.put_blob(name, &config);
        let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": layer_type, "digest": layer_digest, "size": layer.len()}]});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = self.put_blob(name, &manifest);
        json!({"mediaType": manifest_type, "digest": digest, "size": manifest.len()})
    }

    fn put_index(&self, name: &str, manifests: &[Json]) {
        let path = self.path(name);
        fs::write(path.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(path.path().join("index.json"), index.to_string()).unwrap();
    }

    fn open(&self, name: &str) -> Result<Layout, LayoutError> {
        Layout::open(&self.path(name))
    }

    fn image(&self, name: &str) -> Result<Image, LayoutError> {
        self.open(name)?.image(&Platform::linux("amd64"))
    }

    fn writer(&self, name: &str) -> LayoutWriter {
        // A process that another test starts holds the lock of an earlier writer too, until it is another program.
        LayoutWriter::open(&self.dir, &self.path(name), &|| {}).unwrap()
    }

    /// Every file and folder below the layout directory, with content.
    fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                    found.push((path, Vec::new()));
                } else {
                    let bytes = fs::read(&path).unwrap();
                    found.push((path, bytes));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.temp.path(), &mut found);
        found.sort();
        found
    }
}

fn with_platform(mut descriptor: Json, architecture: &str, variant: Option<&str>) -> Json {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    if let Some(variant) = variant {
        descriptor["platform"]["variant"] = json!(variant);
    }
    descriptor
}

fn new_image(writer: &LayoutWriter, architecture: &str, layers: &[&[u8]]) -> NewImage {
    let text =
        json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let layers = layers.iter().map(|bytes| {
        let mut file = TempFile::create_in(&writer.blobs_dir()).unwrap();
        file.file().write_all(bytes).unwrap();
        NewLayer {
            diff_id: DiffId::of(bytes),
            descriptor: Descriptor::new(media::LAYER, Digest::of(bytes), bytes.len() as u64),
            blob: BlobSource::Temporary(file),
        }
    });
    let config: ImageConfig = serde_json::from_value(text).unwrap();
    NewImage { config, layers: layers.collect(), annotations: Annotations::new(), replaces: None }
}

fn export(repository: &Repository, name: &str, architecture: &str, layers: &[&[u8]]) -> Committed {
    let writer = repository.writer(name);
    let image = new_image(&writer, architecture, layers);
    let (committed, left) = writer.commit(image, Vec::new(), LinkMode::Auto).unwrap();
    assert!(left.is_none());
    committed
}

#[test]
fn the_only_image_is_taken_whatever_its_platform() {
    let repository = Repository::new();
    let descriptor = repository.put_image("run", "arm64", b"layer", false);
    repository.put_index("run", &[descriptor]);
    assert_eq!(repository.image("run").unwrap().config.architecture, "arm64");
}

#[test]
fn of_several_the_one_for_the_platform_is_taken() {
    let repository = Repository::new();
    let amd = with_platform(repository.put_image("run", "amd64", b"a", false), "amd64", None);
    let arm_without_platform = repository.put_image("run", "arm64", b"b", true);
    let unknown = with_platform(repository.put_image("run", "unknown", b"c", false), "unknown", None);
    repository.put_index("run", &[unknown.clone(), arm_without_platform.clone(), amd.clone()]);
    assert_eq!(repository.image("run").unwrap().digest().to_string(), amd["digest"].as_str().unwrap());

    repository.put_index("run", &[unknown, arm_without_platform]);
    assert_eq!(repository.image("run").unwrap().config.architecture, "arm64", "attestations are no images");
}

#[test]
fn an_index_in_the_index_is_followed() {
    let repository = Repository::new();
    let amd = with_platform(repository.put_image("run", "amd64", b"a", false), "amd64", None);
    let arm = with_platform(repository.put_image("run", "arm64", b"b", false), "arm64", None);
    let inner =
        json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": [arm, amd.clone()]}).to_string();
    let digest = repository.put_blob("run", inner.as_bytes());
    repository.put_index("run", &[json!({"mediaType": media::INDEX, "digest": digest, "size": inner.len()})]);
    assert_eq!(repository.image("run").unwrap().digest().to_string(), amd["digest"].as_str().unwrap());
}

#[test]
fn none_fits_and_the_error_lists_what_is_there() {
    let repository = Repository::new();
    let s390x = with_platform(repository.put_image("run", "s390x", b"a", false), "s390x", None);
    let arm = with_platform(repository.put_image("run", "arm", b"b", false), "arm", Some("v6"));
    repository.put_index("run", &[s390x, arm]);
    let message = repository.image("run").unwrap_err().to_string();
    for part in ["linux/amd64", "linux/s390x", "linux/arm/v6"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn of_several_for_one_platform_the_name_decides() {
    let repository = Repository::new();
    let mut one = with_platform(repository.put_image("run:v1", "amd64", b"a", false), "amd64", None);
    let mut two = with_platform(repository.put_image("run:v1", "amd64", b"b", false), "amd64", None);
    repository.put_index("run:v1", &[one.clone(), two.clone()]);
    assert!(matches!(repository.image("run:v1"), Err(LayoutError::Ambiguous { .. })));
    one["annotations"] = json!({"org.opencontainers.image.ref.name": "v0"});
    two["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    repository.put_index("run:v1", &[one, two.clone()]);
    assert_eq!(repository.image("run:v1").unwrap().digest().to_string(), two["digest"].as_str().unwrap());
}

/// Something that is done to a layout of one image, and what the error then says.
type Damage = (&'static str, fn(&Path, &Json), &'static str);

#[test]
fn every_malformed_file_is_named() {
    const CASES: [Damage; 9] = [
        ("no index", |dir, _| fs::remove_file(dir.join("index.json")).unwrap(), "no image at"),
        (
            "index is no JSON",
            |dir, _| fs::write(dir.join("index.json"), "{").unwrap(),
            "index.json` is malformed",
        ),
        (
            "index of wrong types",
            |dir, _| fs::write(dir.join("index.json"), r#"{"schemaVersion":2,"manifests":3}"#).unwrap(),
            "index.json` is malformed",
        ),
        ("no oci-layout", |dir, _| fs::remove_file(dir.join("oci-layout")).unwrap(), "oci-layout`"),
        (
            "version of oci-layout",
            |dir, _| fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap(),
            "oci-layout` is malformed",
        ),
        ("no manifest", |dir, image| fs::remove_file(blob(dir, image)).unwrap(), "lacks blob"),
        (
            "manifest changed",
            |dir, image| fs::write(blob(dir, image), vec![b'x'; size(image)]).unwrap(),
            "is corrupt: it has digest",
        ),
        (
            "manifest torn",
            |dir, image| fs::write(blob(dir, image), "{}").unwrap(),
            "is corrupt: it has 2 bytes",
        ),
        (
            "manifest is a folder",
            |dir, image| {
                fs::remove_file(blob(dir, image)).unwrap();
                fs::create_dir(blob(dir, image)).unwrap();
            },
            "not a regular file",
        ),
    ];
    fn blob(dir: &Path, image: &Json) -> PathBuf {
        blob_path(dir, &image["digest"].as_str().unwrap().parse().unwrap())
    }
    fn size(image: &Json) -> usize {
        image["size"].as_u64().unwrap().try_into().unwrap()
    }
    for (what, damage, message) in CASES {
        let repository = Repository::new();
        let image = repository.put_image("run", "amd64", b"layer", false);
        repository.put_index("run", std::slice::from_ref(&image));
        damage(repository.path("run").path(), &image);
        let error = repository.image("run").unwrap_err().to_string();
        assert!(error.contains(message), "{what}: {error}");
    }
    assert!(matches!(Repository::new().open("nowhere"), Err(LayoutError::NotFound(_))));
}

#[test]
fn layers_must_fit_diff_ids() {
    let repository = Repository::new();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let (config_digest, layer) = (repository.put_blob("run", config), repository.put_blob("run", b"l"));
    let manifest = json!({"schemaVersion": 2, "config": {"mediaType": media::CONFIG, "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": media::LAYER, "digest": layer, "size": 1}]}).to_string();
    let digest = repository.put_blob("run", manifest.as_bytes());
    repository
        .put_index("run", &[json!({"mediaType": media::MANIFEST, "digest": digest, "size": manifest.len()})]);
    assert!(repository.image("run").unwrap_err().to_string().contains("do not fit"));
}

#[test]
fn what_is_written_is_read_and_nothing_else_is_there() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"old", b"kept"]);
    let committed = export(&repository, "app", "amd64", &[b"kept", b"new"]);
    let image = repository.image("app").unwrap();
    assert_eq!(image.digest(), committed.digest);
    let layers: Vec<_> = image.layers().collect();
    assert!(layers.iter().all(ImageLayer::is_present));
    assert_eq!(fs::read(&layers[1].path).unwrap(), b"new");
    assert_eq!(image.descriptor.annotations[drydock_model::manifest::REF_NAME], "latest");
    assert_eq!(image.descriptor.platform, Some(Platform::linux("amd64")));
    assert_eq!(fs::read_dir(blobs_dir(repository.path("app").path())).unwrap().count(), 4);
    for (path, _) in repository.snapshot() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o755 } else { 0o644 }, "{}", path.display());
    }
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let repository = Repository::new();
    export(&repository, "one", "amd64", &[b"a", b"b"]);
    let before = repository.snapshot();
    export(&repository, "one", "amd64", &[b"a", b"b"]);
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn dropped_before_commit_nothing_changes() {
    let repository = Repository::new();
    drop(repository.writer("team/new"));
    assert_eq!(repository.snapshot(), []);
    export(&repository, "app", "amd64", &[b"a"]);
    let before = repository.snapshot();
    let writer = repository.writer("app");
    let image = new_image(&writer, "amd64", &[b"b"]);
    drop((image, writer));
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"a"]);
    let before = repository.snapshot();
    let layout = repository.path("app").path().to_owned();
    std::mem::forget(TempFile::create_in(&layout).unwrap());
    std::mem::forget(TempFile::create_in(&blobs_dir(&layout)).unwrap());
    repository.put_blob("app", b"unreferenced");
    export(&repository, "app", "amd64", &[b"a"]);
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn several_names_are_one_image() {
    let repository = Repository::new();
    let (writer, other) = (repository.writer("app"), repository.writer("reg.io/team/app:v2"));
    let image = new_image(&writer, "amd64", &[b"a", b"b"]);
    let (committed, _) = writer.commit(image, vec![other], LinkMode::Auto).unwrap();
    for (name, ref_name) in [("app", "latest"), ("reg.io/team/app:v2", "v2")] {
        let image = repository.image(name).unwrap();
        assert_eq!(image.digest(), committed.digest);
        assert_eq!(image.descriptor.annotations[drydock_model::manifest::REF_NAME], ref_name);
        assert!(image.layers().all(|layer| layer.is_present()));
    }
}

#[test]
fn images_for_other_platforms_stay() {
    let repository = Repository::new();
    let amd = export(&repository, "app", "amd64", &[b"amd"]);
    let arm = export(&repository, "app", "arm64", &[b"arm"]);
    let image = |architecture| repository.open("app").unwrap().image(&Platform::linux(architecture)).unwrap();
    assert_eq!((image("amd64").digest(), image("arm64").digest()), (amd.digest, arm.digest));
    let amd = export(&repository, "app", "amd64", &[b"amd two"]);
    assert_eq!((image("amd64").digest(), image("arm64").digest()), (amd.digest, arm.digest));
    assert_eq!(repository.open("app").unwrap().index().manifests.len(), 1, "one name is one index");
    assert_eq!(fs::read_dir(blobs_dir(repository.path("app").path())).unwrap().count(), 7);
}

#[test]
fn blobs_come_from_another_layout_checked() {
    let repository = Repository::new();
    export(&repository, "run", "amd64", &[b"base"]);
    let layer = repository.image("run").unwrap().layers().next().unwrap();
    let writer = repository.writer("app");
    let shared = writer.bring(&layer, LinkMode::Auto).unwrap();
    assert_eq!((shared.shared, shared.copied), (4, 0));
    fs::write(&layer.path, b"evil").unwrap();
    assert!(matches!(repository.writer("b").bring(&layer, LinkMode::Copy), Err(LayoutError::Corrupt { .. })));
}

#[test]
fn a_second_writer_waits() {
    let repository = Repository::new();
    let writer = repository.writer("app");
    let (told, is_told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let told = told;
            let writer =
                LayoutWriter::open(&repository.dir, &repository.path("app"), &|| told.send(()).unwrap());
            writer.map(|writer| writer.path().clone())
        });
        is_told.recv().unwrap();
        // Dropped, the first one removes the folder that it made: the second must notice and make its own.
        drop(writer);
        assert_eq!(waiting.join().unwrap().unwrap(), repository.path("app"));
    });
}

#[test]
fn a_symlink_does_not_lead_out() {
    let repository = Repository::new();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), repository.temp.path().join("index.docker.io")).unwrap();
    let error = LayoutWriter::open(&repository.dir, &repository.path("app"), &|| {}).unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn kept_blobs_are_not_read_but_checked_on_their_way_elsewhere() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"kept"]);
    let layer = repository.image("app").unwrap().layers().next().unwrap();
    let rebased = |names: &[&str]| {
        let mut writers: Vec<_> = names.iter().map(|name| repository.writer(name)).collect();
        assert!(writers[0].holds(&layer.descriptor));
        let mut image = new_image(&writers[0], "amd64", &[b"new"]);
        let (diff_id, descriptor) = (layer.diff_id, layer.descriptor.clone());
        image.layers.push(NewLayer { diff_id, descriptor, blob: BlobSource::Kept });
        writers.remove(0).commit(image, writers, LinkMode::Copy).map(|_| ())
    };
    fs::write(&layer.path, b"evil").unwrap();
    rebased(&["app"]).unwrap();
    assert!(matches!(rebased(&["app", "other"]), Err(LayoutError::Corrupt { .. })));
    fs::write(&layer.path, b"kept").unwrap();
    rebased(&["app", "other"]).unwrap();
    assert!(repository.image("other").unwrap().layers().all(|layer| layer.open().is_ok()));
    fs::set_permissions(&layer.path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!repository.writer("app").holds(&layer.descriptor), "of another mode");
    fs::write(&layer.path, b"longer").unwrap();
    assert!(!repository.writer("app").holds(&layer.descriptor), "of another size");
}

#[test]
fn an_image_that_is_replaced_goes_whatever_its_platform() {
    let repository = Repository::new();
    let amd = export(&repository, "app", "amd64", &[b"amd"]);
    export(&repository, "app", "arm64", &[b"arm"]);
    let writer = repository.writer("app");
    let image = NewImage { replaces: Some(amd.digest), ..new_image(&writer, "s390x", &[b"new"]) };
    writer.commit(image, Vec::new(), LinkMode::Auto).unwrap();
    let images = repository.open("app").unwrap().images_with_platforms().unwrap();
    let platforms: Vec<String> = images.iter().map(|(_, platform)| platform.to_string()).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/s390x"]);
}
