//! What holds for caches of both kinds.

use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use drydock_encode::{compress::Compression, pipeline};
use drydock_io::sink::Sink;
use drydock_layout::{BlobSource, Durability, Transaction};
use drydock_layout::{Layout, NewImage, NewLayer};
use drydock_model::config::ImageConfig;
use drydock_model::manifest::{Annotations, Descriptor};
use drydock_model::{media, platform::Platform};
use drydock_tar::TarError;
use serde_json::json;

use super::*;
use crate::memory_log::MemoryLog;

/// A folder, a cache of each kind in it, and a log.
struct Caches {
    dir: tempfile::TempDir,
    log: MemoryLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CacheKind {
    Dir,
    Image,
}

const BOTH: [CacheKind; 2] = [CacheKind::Dir, CacheKind::Image];

impl Caches {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("volume")).unwrap();
        Self { dir, log: MemoryLog::default() }
    }

    fn layouts(&self) -> LayoutDir {
        LayoutDir::new(&self.dir.path().join("layouts")).unwrap()
    }

    fn location(&self, kind: CacheKind) -> CacheLocation {
        match kind {
            CacheKind::Dir => CacheLocation::Dir(self.dir.path().join("volume")),
            CacheKind::Image => CacheLocation::Image(self.layouts().resolve("cache").unwrap()),
        }
    }

    fn read(&self, kind: CacheKind) -> Box<dyn Cache> {
        open(&self.location(kind), &self.log).unwrap()
    }

    fn write(&self, kind: CacheKind) -> Box<dyn CacheWriter> {
        open_writer(&self.location(kind), &self.layouts(), LinkMode::Auto, &Arc::default(), &self.log)
            .unwrap()
    }

    /// The cache image's index.
    fn index(&self) -> PathBuf {
        self.layouts().path().join("index.docker.io/library/cache/latest/index.json")
    }

    fn text(&self, kind: CacheKind, diff_id: &DiffId) -> Result<String, String> {
        let mut text = String::new();
        let tar = self.read(kind).tar(diff_id);
        tar.map_err(|error| format!("{error:#}"))?.tar.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    /// The file with a layer's bytes.
    fn file(&self, kind: CacheKind, diff_id: &DiffId) -> PathBuf {
        match self.location(kind) {
            CacheLocation::Dir(dir) => dir.join("committed").join(format!("{diff_id}.tar")),
            CacheLocation::Image(path) => {
                let image = Layout::open(&path).unwrap().predecessor(&Platform::host()).unwrap().unwrap();
                image.layer(diff_id).unwrap().path()
            }
        }
    }

    /// An app image with one layer, compressed; gives that layer.
    fn app_layer(&self, text: &[u8]) -> ImageLayer {
        let path = self.layouts().resolve("app").unwrap();
        let names = std::slice::from_ref(&path);
        let begin = Transaction::begin(&self.layouts(), names, LinkMode::Auto, Durability::InMemory, &|_| ());
        let transaction = begin.unwrap();
        let source = |sink: &mut dyn Sink| {
            sink.write_all(text).unwrap();
            Ok::<_, TarError>(())
        };
        let beside = transaction.beside_blobs();
        let job = pipeline::Job { source: &source, known: None, blob: Some(&beside), copy: None };
        let settings = pipeline::Settings {
            threads: NonZeroUsize::MIN,
            compression: Compression::default(),
            write_out: false,
        };
        let done = pipeline::run(&[job], settings).unwrap().remove(0);
        let blob = done.blob.unwrap();
        let layer = NewLayer {
            diff_id: done.diff_id,
            descriptor: Descriptor::new(blob.media_type, blob.digest, blob.size),
            blob: BlobSource::Temporary(blob.file),
        };
        let Platform { os, architecture, .. } = Platform::host();
        let config = json!({"os": os, "architecture": architecture, "rootfs": {"type": "layers"}});
        let config: ImageConfig = serde_json::from_value(config).unwrap();
        let image = NewImage { config, layers: vec![layer], annotations: Annotations::new(), replaces: None };
        transaction.prepare_image(image).unwrap().publish().unwrap();
        let image = Layout::open(&path).unwrap().image(&Platform::host()).unwrap();
        image.layers().next().unwrap()
    }
}

fn add(cache: &mut dyn CacheWriter, text: &[u8]) -> DiffId {
    let mut tar = TempFile::create_in(cache.staging()).unwrap();
    tar.file().write_all(text).unwrap();
    cache.add(&DiffId::of(text), tar).unwrap();
    DiffId::of(text)
}

fn named(name: &str) -> CacheMetadata {
    CacheMetadata { sbom: name.to_owned(), ..CacheMetadata::default() }
}

#[test]
fn what_is_added_or_kept_is_there_and_the_rest_gone() {
    for kind in BOTH {
        let caches = Caches::new();
        let mut cache = caches.write(kind);
        assert_eq!(cache.metadata(&caches.log), CacheMetadata::default());
        let (one, two) = (add(&mut *cache, b"one"), add(&mut *cache, b"two"));
        cache.commit(&named("first"), &caches.log).unwrap();
        assert_eq!(caches.read(kind).metadata(&caches.log), named("first"));
        let two_file = caches.file(kind, &two);

        let mut cache = caches.write(kind);
        let mut tar = String::new();
        cache.tar(&one).unwrap().read_to_string(&mut tar).unwrap();
        assert_eq!(tar, "one");
        assert!(cache.tar(&DiffId::of(b"never")).is_none());
        cache.keep(&one).unwrap();
        assert!(cache.keep(&DiffId::of(b"never")).is_err());
        cache.commit(&named("second"), &caches.log).unwrap();

        assert_eq!(caches.text(kind, &one).unwrap(), "one");
        let gone = caches.text(kind, &two).unwrap_err();
        assert!(gone.contains(&format!("failed to find cache layer with SHA '{two}'")), "{gone}");
        // A blob of an image is kept for a time: somebody may be copying the image.
        assert_eq!(two_file.exists(), kind == CacheKind::Image);
        assert!(!caches.log.text().contains("Warn"), "{}", caches.log.text());
    }
}

#[test]
fn without_a_commit_nothing_changes() {
    for kind in BOTH {
        let caches = Caches::new();
        let mut cache = caches.write(kind);
        let one = add(&mut *cache, b"one");
        cache.commit(&named("first"), &caches.log).unwrap();
        let mut cache = caches.write(kind);
        let two = add(&mut *cache, b"two");
        drop(cache);
        assert_eq!(caches.text(kind, &one).unwrap(), "one");
        assert!(caches.text(kind, &two).is_err());
        assert_eq!(caches.read(kind).metadata(&caches.log), named("first"));
    }
}

#[test]
fn a_blob_of_the_app_image_is_not_written_again() {
    let caches = Caches::new();
    let app = caches.app_layer(&vec![7; 100_000]);
    let mut cache = caches.write(CacheKind::Image);
    assert!(cache.shares_blobs());
    cache.share(&app).unwrap();
    cache.commit(&named("first"), &caches.log).unwrap();
    let file = caches.file(CacheKind::Image, &app.diff_id);
    let shared = fs::read(&file).unwrap();
    assert_eq!(shared, fs::read(app.path()).unwrap());
    assert!(shared.len() < 10_000);
    assert_eq!(caches.text(CacheKind::Image, &app.diff_id).unwrap().as_bytes(), vec![7; 100_000]);
    assert!(caches.write(CacheKind::Image).tar(&app.diff_id).is_none(), "a compressed blob is no tar");

    // What is in the cache is not believed, nor is what comes.
    fs::remove_file(&file).unwrap();
    fs::write(&file, vec![0; shared.len()]).unwrap();
    let mut cache = caches.write(CacheKind::Image);
    cache.share(&app).unwrap();
    cache.commit(&named("second"), &caches.log).unwrap();
    assert_eq!(fs::read(&file).unwrap(), shared);
    fs::write(app.path(), vec![0; shared.len()]).unwrap();
    for kind in BOTH {
        assert!(
            Caches::new().write(kind).share(&app).is_err(),
            "a damaged blob came into the cache: {kind:?}"
        );
    }
}

#[test]
fn a_cache_image_is_an_image() {
    let caches = Caches::new();
    let mut cache = caches.write(CacheKind::Image);
    add(&mut *cache, b"one");
    cache.commit(&named("first"), &caches.log).unwrap();
    let layout = Layout::open(&caches.layouts().resolve("cache").unwrap()).unwrap();
    let image = layout.image(&Platform::host()).unwrap();
    assert_eq!(image.config.platform(), Platform::host());
    let layer = image.layers().next().unwrap();
    assert_eq!(layer.descriptor.media_type, media::LAYER);
    layer.open().unwrap();
    let blobs = fs::read_dir(image.layout().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 3, "manifest, config and one layer");
}

#[test]
fn what_is_no_cache_image_counts_as_empty_with_a_warning() {
    let spoil: [fn(&Caches); 2] = [
        |caches| {
            caches.write(CacheKind::Image).commit(&named("x"), &caches.log).unwrap();
            fs::write(caches.index(), "{").unwrap();
        },
        |caches| {
            fs::create_dir_all(caches.index().parent().unwrap()).unwrap();
            fs::write(caches.index(), "{}").unwrap();
        },
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let caches = Caches::new();
        spoil(&caches);
        assert_eq!(caches.read(CacheKind::Image).metadata(&caches.log), CacheMetadata::default());
        let said = caches.log.text();
        assert!(said.contains("counts as empty"), "{number}: {said}");
        // The next export makes it a cache.
        caches.write(CacheKind::Image).commit(&named("new"), &caches.log).unwrap();
        assert_eq!(caches.read(CacheKind::Image).metadata(&caches.log), named("new"));
    }
}

#[test]
fn an_image_that_is_no_cache_is_not_replaced() {
    let caches = Caches::new();
    caches.app_layer(b"x");
    let layouts = caches.dir.path().join("layouts/index.docker.io/library");
    fs::rename(layouts.join("app"), layouts.join("cache")).unwrap();
    assert_eq!(caches.read(CacheKind::Image).metadata(&caches.log), CacheMetadata::default());
    assert!(caches.log.text().contains("counts as empty"));
    let before = fs::read(caches.index()).unwrap();
    let location = caches.location(CacheKind::Image);
    let writer =
        open_writer(&location, &caches.layouts(), LinkMode::Auto, &Arc::default(), &caches.log).map(drop);
    for result in [location.check(), writer] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("is no cache") && message.contains("another name"), "{message}");
    }
    assert_eq!(fs::read(caches.index()).unwrap(), before);
}

#[test]
fn readers_do_not_make_a_cache() {
    let caches = Caches::new();
    assert_eq!(caches.read(CacheKind::Image).metadata(&caches.log), CacheMetadata::default());
    assert!(!caches.layouts().path().exists());
    assert_eq!(caches.log.text(), "");
}

#[test]
fn a_cache_and_an_image_have_folders_of_their_own() {
    let caches = Caches::new();
    let dir = caches.dir.path();
    let layouts = caches.layouts();
    let path = |name: &str| layouts.path().join("index.docker.io/library").join(name);
    fs::create_dir_all(path("app/latest/cache")).unwrap();
    fs::create_dir_all(path("cache/latest/below")).unwrap();
    fs::create_dir_all(dir.join("volume/staging")).unwrap();
    for (link, to) in [
        ("app/also", "latest"),
        ("app/volume", "../../../../volume"),
        ("app/below", "../../../../volume/staging"),
    ] {
        std::os::unix::fs::symlink(to, path(link)).unwrap();
    }
    std::os::unix::fs::symlink(path("app/latest"), dir.join("link")).unwrap();
    let volume = |path: PathBuf| CacheLocation::Dir(path);
    let image = |name: &str| CacheLocation::Image(layouts.resolve(name).unwrap());
    for (cache, name, is_apart) in [
        (volume(dir.join("volume")), "app:latest", true),
        (volume(dir.to_owned()), "app:latest", true),
        (volume(dir.join("link")), "app:latest", false),
        (volume(dir.join("link/cache")), "app:latest", false),
        (volume(path("app/latest")), "app:also", false),
        (volume(dir.join("volume")), "app:volume", false),
        (volume(dir.join("volume")), "app:below", false),
        (volume(dir.join("volume")), "app:none", true),
        (image("cache"), "app:latest", true),
        (image("app:also"), "app:latest", false),
        (image("app:latest"), "app:also", false),
        (image("cache"), "cache", false),
        (image("none"), "app:latest", true),
    ] {
        let images = ["other", name].map(|name| layouts.resolve(name).unwrap());
        assert_eq!(cache.check_apart_from(&images).is_ok(), is_apart, "{cache:?} {name}");
    }
}
