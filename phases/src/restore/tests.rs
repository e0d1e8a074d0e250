//! Which layers come back, from caches that are whole, damaged or gone.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use drydock_io::sink::MemorySink;
use drydock_model::digest::DiffId;
use drydock_spec::Metadata;
use drydock_spec::analyzed::{BuildpackLayers, Layer, LayersMetadata, Store};
use drydock_spec::api::PlatformApi;
use drydock_spec::cache::{CacheMetadata, METADATA_NAME};
use drydock_spec::group::GroupElement;
use drydock_tar::Owner;
use tempfile::TempDir;

use super::{Inputs, restore_group};
use crate::cache::CacheLocation;
use crate::layer_tar::{DirLayer, LayerSource as _};
use crate::memory_log::MemoryLog;

fn metadata(text: &str) -> Metadata {
    Metadata(text.parse().unwrap())
}

/// A layers directory, a volume cache, and what the previous image says.
struct Setting {
    temp: TempDir,
    api: PlatformApi,
    skip_layers: bool,
    image: BuildpackLayers,
    cached: CacheMetadata,
}

impl Setting {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("layers")).unwrap();
        fs::create_dir_all(temp.path().join("cache/committed")).unwrap();
        let none = BuildpackLayers { key: "acme/a".into(), ..BuildpackLayers::default() };
        let cached = CacheMetadata { buildpacks: vec![none.clone()], ..CacheMetadata::default() };
        Self { temp, api: PlatformApi::NEWEST, skip_layers: false, image: none, cached }
    }

    fn layers(&self, below: &str) -> PathBuf {
        self.temp.path().join("layers").join(below)
    }

    fn tar(&self, diff_id: DiffId) -> PathBuf {
        self.temp.path().join("cache/committed").join(format!("{diff_id}.tar"))
    }

    /// Puts a folder of the layers directory, with one file, into the cache, and takes it away.
    fn cache_dir(&self, below: &str, file: &str) -> DiffId {
        let dir = self.layers(below);
        fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
        fs::write(dir.join(file), below).unwrap();
        let mut sink = MemorySink::default();
        DirLayer::new(&dir, Owner { uid: 0, gid: 0 }).write(&mut sink).unwrap();
        let tar = sink.into_bytes();
        fs::write(self.tar(DiffId::of(&tar)), &tar).unwrap();
        fs::remove_dir_all(dir).unwrap();
        DiffId::of(&tar)
    }

    fn cache_layer(&mut self, name: &str, launch: bool) -> DiffId {
        let diff_id = self.cache_dir(&format!("acme_a/{name}"), "file");
        let layer = Layer { sha: diff_id.to_string(), launch, cache: true, ..Layer::default() };
        self.cached.buildpacks[0].layers.insert(name.into(), layer);
        diff_id
    }

    fn in_image(&mut self, name: &str, sha: &impl ToString, build: bool, cache: bool) {
        let metadata = Some(metadata("n = 3"));
        let layer = Layer { sha: sha.to_string(), launch: true, build, cache, metadata };
        self.image.layers.insert(name.into(), layer);
    }

    /// What was said.
    fn restore(&self) -> String {
        let metadata_path = self.temp.path().join("cache/committed").join(METADATA_NAME);
        fs::write(metadata_path, self.cached.to_json().unwrap()).unwrap();
        let inputs = Inputs {
            platform_api: self.api,
            layout_dir: None,
            layers_dir: self.layers(""),
            group_path: self.layers("group.toml"),
            analyzed_path: self.layers("analyzed.toml"),
            run_path: self.layers("run.toml"),
            stack_path: self.layers("stack.toml"),
            build_image: None,
            cache: Some(CacheLocation::Dir(self.temp.path().join("cache"))),
            skip_layers: self.skip_layers,
            layer_index: None,
            owner: Owner::ROOT,
            threads: NonZeroUsize::new(2).unwrap(),
            early: drydock_layout::Early::default(),
        };
        let group = [GroupElement { id: "acme/a".into(), version: "1".into(), ..GroupElement::default() }];
        let metadata = LayersMetadata { buildpacks: vec![self.image.clone()], ..LayersMetadata::default() };
        let log = MemoryLog::default();
        restore_group(&inputs, &group, &metadata, &log).unwrap();
        log.text()
    }

    /// Whether metadata and whether contents of a layer are there.
    fn state(&self, name: &str) -> (bool, bool) {
        (
            self.layers(&format!("acme_a/{name}.toml")).exists(),
            self.layers(&format!("acme_a/{name}/file")).exists(),
        )
    }
}

const WHOLE: (bool, bool) = (true, true);
const METADATA: (bool, bool) = (true, false);
const NOTHING: (bool, bool) = (false, false);

#[test]
fn what_an_image_says_comes_back_by_the_types_of_the_layer() {
    let mut setting = Setting::new();
    setting.in_image("launched", &"sha256:x", false, false);
    setting.in_image("built", &"sha256:x", true, false);
    setting.in_image("uncached", &"sha256:x", false, true);
    let cached = setting.cache_layer("cached", true);
    setting.in_image("cached", &cached, true, true);
    let said = setting.restore();
    for (name, want) in [("launched", METADATA), ("built", NOTHING), ("uncached", NOTHING), ("cached", WHOLE)]
    {
        assert_eq!(setting.state(name), want, "{name}: {said}");
    }
    assert_eq!(fs::read_to_string(setting.layers("acme_a/launched.toml")).unwrap(), "[metadata]\n  n = 3\n");
}

/// As buildpacks made with libcnb read a layer's file: the table must be there, whatever is in it.
#[test]
fn metadata_comes_back_as_it_was_written() {
    #[derive(serde::Deserialize)]
    struct Restored {
        metadata: toml::Table,
    }
    for text in [
        "",
        "n = 1\nf = 1.0\nbig = 9007199254740993\ns = \"\"",
        "[empty]",
        "[a.b.c]\n[a.d]\nk = true",
        "[[tables]]\nx = 1\n[[tables]]\n[[tables]]\n[tables.sub]",
        "list = []\nnested = [[], [1, [2]]]\nmixed = [{ k = {} }, 'text', 1.5]",
        "\"a b\" = 'x\\n\"'\n\"\" = 1",
    ] {
        let mut setting = Setting::new();
        let written = metadata(text);
        let cached = setting.cache_layer("cached", false);
        setting.in_image("launched", &cached, false, false);
        setting.image.layers.get_mut("launched").unwrap().metadata = Some(written.clone());
        setting.cached.buildpacks[0].layers.get_mut("cached").unwrap().metadata = Some(written.clone());
        setting.image.store = Some(Store { metadata: Some(written.clone()) });
        setting.restore();
        for file in ["launched", "cached", "store"] {
            let read = fs::read_to_string(setting.layers(&format!("acme_a/{file}.toml"))).unwrap();
            let restored: Restored = toml::from_str(&read).unwrap();
            assert_eq!(restored.metadata, written.0, "{file}: {text}");
        }
    }
}

#[test]
fn what_had_no_metadata_comes_back_without() {
    let mut setting = Setting::new();
    setting.cache_layer("cached", false);
    setting.image.store = Some(Store { metadata: None });
    setting.restore();
    for file in ["cached", "store"] {
        assert_eq!(fs::read_to_string(setting.layers(&format!("acme_a/{file}.toml"))).unwrap(), "");
    }
}

#[test]
fn launch_layers_come_back_from_the_cache_alone_since_0_14() {
    for (minor, want) in [(13, NOTHING), (14, WHOLE)] {
        let mut setting = Setting::new();
        setting.api = PlatformApi::minor(minor);
        setting.cache_layer("both", true);
        setting.cache_layer("cache", false);
        let said = setting.restore();
        assert_eq!((setting.state("both"), setting.state("cache")), (want, WHOLE), "{said}");
    }
}

/// What happens to a tar.
type Damage = (&'static str, fn(&PathBuf));

#[test]
fn a_damaged_or_missing_layer_is_dropped_with_its_metadata() {
    let damage: [Damage; 3] = [
        ("gone", |tar| fs::remove_file(tar).unwrap()),
        ("cut off", |tar| fs::write(tar, &fs::read(tar).unwrap()[..700]).unwrap()),
        ("changed", |tar| {
            let mut bytes = fs::read(tar).unwrap();
            *bytes.iter_mut().rev().find(|byte| **byte != 0).unwrap() ^= 1;
            fs::write(tar, bytes).unwrap();
        }),
    ];
    for (what, damage) in damage {
        let mut setting = Setting::new();
        let bad = setting.cache_layer("bad", false);
        setting.cache_layer("good", false);
        damage(&setting.tar(bad));
        let said = setting.restore();
        assert_eq!((setting.state("bad"), setting.state("good")), (NOTHING, WHOLE), "{what}: {said}");
        assert!(!setting.layers("acme_a/bad").exists(), "{what}");
        assert!(said.contains("Warn: Skipping restore for layer acme/a:bad"), "{what}: {said}");
    }
}

#[test]
fn a_cached_layer_of_another_state_is_removed() {
    let mut setting = Setting::new();
    setting.cache_layer("other", true);
    setting.in_image("other", &DiffId::of(b"newer"), false, true);
    fs::create_dir_all(setting.layers("acme_a/other")).unwrap();
    fs::write(setting.layers("acme_a/other/file"), "stale").unwrap();
    let said = setting.restore();
    assert_eq!(setting.state("other"), NOTHING, "{said}");
    assert!(said.contains("Removing \"acme/a:other\", wrong sha"), "{said}");
}

/// What only says that it is a layer in the cache comes back neither as that nor as a file of the buildpack's.
#[test]
fn layers_without_contents_or_a_name_stay_away() {
    let mut setting = Setting::new();
    let layer = |sha: &str| Layer {
        sha: sha.to_owned(),
        cache: true,
        metadata: Some(metadata("n = 3")),
        ..Layer::default()
    };
    let digest = setting.cache_layer("whole", false).to_string();
    for (name, sha) in
        [("empty", ""), ("other", "sha512:zz"), ("store", ""), ("store", &digest), ("launch", &digest)]
    {
        setting.cached.buildpacks[0].layers.insert(name.into(), layer(sha));
        setting.restore();
        assert_eq!(setting.state(name), NOTHING, "{name} {sha}");
    }
    assert_eq!(setting.state("whole"), WHOLE);
    setting.in_image("empty", &"", true, true);
    setting.restore();
    assert_eq!(setting.state("empty"), NOTHING);
}

#[test]
fn contents_replace_what_is_there() {
    let mut setting = Setting::new();
    setting.cache_layer("layer", false);
    fs::create_dir_all(setting.layers("acme_a/layer")).unwrap();
    fs::write(setting.layers("acme_a/layer/stale"), "").unwrap();
    setting.restore();
    assert_eq!(setting.state("layer"), WHOLE);
    assert!(!setting.layers("acme_a/layer/stale").exists());
}

#[test]
fn only_the_store_comes_back_when_layers_are_skipped() {
    let mut setting = Setting::new();
    setting.cache_layer("cached", false);
    setting.in_image("launched", &"sha256:x", false, false);
    setting.image.store = Some(Store { metadata: Some(metadata("k = 'v'")) });
    setting.skip_layers = true;
    let said = setting.restore();
    assert_eq!((setting.state("cached"), setting.state("launched")), (NOTHING, NOTHING));
    assert!(fs::read_to_string(setting.layers("acme_a/store.toml")).unwrap().contains("k = \"v\""));
    assert!(said.contains("Skipping buildpack layer analysis"), "{said}");
}

#[test]
fn data_comes_back_in_the_order_of_layer_names() {
    let mut setting = Setting::new();
    for name in ["d", "a", "c", "b"] {
        let cached = setting.cache_layer(name, name < "c");
        if name < "c" {
            setting.in_image(name, &cached, false, true);
        }
    }
    let names = ["a", "b", "c", "d"];
    let want = names.map(|name| format!("Info: Restoring data for \"acme/a:{name}\" from cache"));
    let said = setting.restore();
    let told: Vec<&str> = said.lines().filter(|line| line.contains("Restoring data")).collect();
    assert_eq!(told, want);
}

#[test]
fn why_a_layer_does_not_come_back_is_told_at_debug_level() {
    let mut setting = Setting::new();
    setting.api = PlatformApi::minor(13);
    let both = setting.cache_layer("both", true);
    setting.cache_layer("launched", true);
    setting.in_image("both", &both, false, true);
    setting.in_image("built", &"sha256:x", true, false);
    setting.in_image("uncached", &"sha256:x", false, true);
    let other = setting.cache_layer("other", true);
    let newer = DiffId::of(b"newer");
    setting.in_image("other", &newer, false, true);
    setting.in_image("unlaunched", &"sha256:x", false, false);
    setting.image.layers.get_mut("unlaunched").unwrap().launch = false;
    let said = setting.restore();
    for want in [
        &format!("The app image has layer \"acme/a:both\" (build=false, launch=true, cache=true): {both}"),
        &format!("The cache has layer \"acme/a:both\" (build=false, launch=true, cache=true): {both}"),
        &format!("Layer sha: \"{newer}\", cache sha: \"{other}\""),
        &format!("Retrieving data for \"{both}\""),
        "Writing layer metadata for \"acme/a:both\"",
        "Not restoring metadata for \"acme/a:both\" from cache: it is marked as launch=true, so what the app image has counts",
        "Not restoring metadata for \"acme/a:built\" from app image: it is marked as build=true, cache=false",
        "Not restoring metadata for \"acme/a:uncached\" from app image: it is marked as cache=true, but the cache",
        "Not restoring metadata for \"acme/a:unlaunched\" from app image: it is marked as launch=false",
        "Not restoring metadata for \"acme/a:launched\" from cache: it is marked as launch=true, and before Platform API",
    ] {
        assert!(said.contains(&format!("Debug: {want}")), "{want}: {said}");
    }
}

#[test]
fn the_sbom_is_mentioned_even_where_layers_are_skipped() {
    let mut setting = Setting::new();
    setting.cached.sbom = setting.cache_dir("sbom/cache", "acme_a/layer/sbom.cdx.json").to_string();
    setting.skip_layers = true;
    fs::create_dir_all(setting.layers("acme_a")).unwrap();
    let said = setting.restore();
    assert!(said.contains("Info: Restoring data for SBOM from cache\n"), "{said}");
    assert!(!setting.layers("acme_a/layer.sbom.cdx.json").exists() && !setting.layers("sbom/cache").exists());
}

#[test]
fn sbom_files_go_beside_their_layers_and_a_lost_one_is_no_failure() {
    for lost in [false, true] {
        let mut setting = Setting::new();
        setting.cache_layer("layer", false);
        let sbom = setting.cache_dir("sbom/cache", "acme_a/layer/sbom.cdx.json");
        setting.cached.sbom = sbom.to_string();
        if lost {
            fs::remove_file(setting.tar(sbom)).unwrap();
        }
        let said = setting.restore();
        assert_eq!(setting.layers("acme_a/layer.sbom.cdx.json").exists(), !lost, "{said}");
        assert_eq!(said.contains("Warn: Skipping restore of the cached SBOM files"), lost, "{said}");
        assert!(!setting.layers("sbom").exists());
    }
}

#[test]
fn names_that_lead_elsewhere_are_passed_over() {
    let mut setting = Setting::new();
    let diff_id = setting.cache_layer("layer", false);
    for name in ["../../escaped", "..", ""] {
        let layer = Layer { sha: diff_id.to_string(), cache: true, ..Layer::default() };
        setting.cached.buildpacks[0].layers.insert(name.into(), layer);
        setting.in_image(name, &diff_id, false, false);
    }
    setting.restore();
    assert!(!setting.temp.path().join("escaped.toml").exists());
    assert!(!setting.layers("..toml").exists() && !setting.layers("acme_a/.toml").exists());
}
