//! What is read, and what is refused.

use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;

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

/// An error with its cause.
fn told(error: &LayoutError) -> String {
    format!("{error}: {}", std::error::Error::source(error).map_or(String::new(), ToString::to_string))
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
        let error = told(&repository.image("run").unwrap_err());
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
fn only_regular_files_within_limits_are_read() {
    let fifo = |path: &Path| {
        fs::remove_file(path).unwrap();
        mkfifoat(CWD, path, Mode::RWXU).unwrap();
    };
    let huge = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    for name in ["index.json", "oci-layout", "manifest"] {
        for (damage, want) in [
            (&fifo as &dyn Fn(&Path), &["not a regular file"][..]),
            (&huge, &["more than 8388608 bytes", "its descriptor says"]),
        ] {
            let repository = Repository::new();
            let image = repository.put_image("run", "amd64", b"layer", false);
            repository.put_index("run", std::slice::from_ref(&image));
            let dir = repository.path("run").path().to_owned();
            let digest = image["digest"].as_str().unwrap().parse().unwrap();
            damage(&if name == "manifest" { blob_path(&dir, &digest) } else { dir.join(name) });
            let error = told(&repository.image("run").unwrap_err());
            assert!(want.iter().any(|want| error.contains(want)), "{name}: {error}");
        }
    }
}

/// Puts an index that names others, each as often as told; returns its descriptor.
fn put_index_of(repository: &Repository, inner: &[Json]) -> Json {
    let text = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": inner}).to_string();
    let digest = repository.put_blob("run", text.as_bytes());
    json!({"mediaType": media::INDEX, "digest": digest, "size": text.len()})
}

#[test]
fn an_index_counts_each_time_that_it_is_named() {
    let repository = Repository::new();
    let image = repository.put_image("run", "amd64", b"layer", false);
    let mut index = put_index_of(&repository, std::slice::from_ref(&image));
    repository.put_index("run", &[index.clone(), index.clone()]);
    assert_eq!(repository.image("run").unwrap().digest().to_string(), image["digest"].as_str().unwrap());
    let mut deep = index.clone();
    for _ in 0..MAX_DEPTH - 1 {
        // Followed each time that it is named, this would be 100 to the power of its depth.
        index = put_index_of(&repository, &vec![index; 100]);
        deep = put_index_of(&repository, &[deep]);
    }
    repository.put_index("run", &[index]);
    assert!(repository.image("run").unwrap_err().to_string().contains("descriptors"));
    repository.put_index("run", std::slice::from_ref(&deep));
    assert_eq!(repository.image("run").unwrap().digest().to_string(), image["digest"].as_str().unwrap());
    let deeper = put_index_of(&repository, &[deep]);
    repository.put_index("run", &[deeper]);
    assert!(repository.image("run").unwrap_err().to_string().contains("nested more than"));
}

#[test]
fn descriptors_have_a_limit() {
    let repository = Repository::new();
    let image = with_platform(repository.put_image("run", "amd64", b"layer", false), "amd64", None);
    repository.put_index("run", &vec![image.clone(); MAX_DESCRIPTORS]);
    repository.image("run").unwrap();
    repository.put_index("run", &vec![image; MAX_DESCRIPTORS + 1]);
    assert!(repository.image("run").unwrap_err().to_string().contains("descriptors"));
}

#[test]
fn artifacts_are_no_images() {
    let repository = Repository::new();
    let image = repository.put_image("run", "amd64", b"layer", false);
    let artifact = put_artifact(&repository, "run", &image);
    for artifact in [artifact.clone(), {
        let mut told = artifact;
        told["artifactType"] = json!("application/spdx+json");
        told
    }] {
        repository.put_index("run", &[artifact, image.clone()]);
        let found = repository.image("run").unwrap();
        assert_eq!(found.digest().to_string(), image["digest"].as_str().unwrap());
    }
}

#[test]
fn a_name_that_is_a_digest_means_only_that() {
    let repository = Repository::new();
    let named = |digest: &str| format!("acme/run@{digest}");
    let image = repository.put_image("run", "amd64", b"layer", false);
    let other = with_platform(repository.put_image("run", "arm64", b"other", false), "arm64", None);
    let index = put_index_of(&repository, &[with_platform(image.clone(), "amd64", None), other.clone()]);
    let digest = |descriptor: &Json| descriptor["digest"].as_str().unwrap().to_owned();
    for (pin, top, want) in [
        (&image, &image, Some(&image)),
        (&other, &index, Some(&other)),
        (&index, &index, Some(&image)),
        (&index, &image, None),
        (&other, &image, None),
    ] {
        repository.put_index("run", std::slice::from_ref(top));
        let pinned = repository.path(&named(&digest(pin)));
        fs::create_dir_all(pinned.path().parent().unwrap()).unwrap();
        fs::rename(repository.path("run").path(), pinned.path()).unwrap();
        let found = repository.image(&named(&digest(pin)));
        assert_eq!(found.ok().map(|image| image.digest().to_string()), want.map(digest));
        fs::rename(pinned.path(), repository.path("run").path()).unwrap();
    }
}

/// Descriptors that have nothing to do with an image beside them, and what is said if nothing is beside them. What the
/// first leads to is there.
fn foreign(repository: &Repository, name: &str) -> Vec<(Json, &'static str)> {
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let missing = Digest::of(b"missing");
    let kept = repository.put_blob(name, b"a blob that only the foreign manifest names");
    let manifest =
        json!({"schemaVersion": 2, "config": {"mediaType": media::CONFIG, "digest": kept, "size": 43}});
    let dir = repository.path(name).path().join("blobs/sha512");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("0".repeat(128)), manifest.to_string()).unwrap();
    let lacks_config =
        json!({"schemaVersion": 2, "config": {"mediaType": media::CONFIG, "digest": missing, "size": 7}});
    let lacks_config = lacks_config.to_string();
    let digest = repository.put_blob(name, lacks_config.as_bytes());
    vec![
        (
            json!({"mediaType": media::MANIFEST, "digest": sha512, "size": 9, "x": 1}),
            "digests must be of SHA-256",
        ),
        (json!({"mediaType": media::MANIFEST, "digest": missing, "size": 7}), "lacks blob"),
        (json!({"mediaType": media::INDEX, "digest": Digest::of(b"missing too"), "size": 11}), "lacks blob"),
        (json!({"mediaType": media::MANIFEST, "digest": digest, "size": lacks_config.len()}), "lacks blob"),
    ]
}

#[test]
fn what_is_foreign_is_no_image() {
    let repository = Repository::new();
    let image = repository.put_image("run", "amd64", b"layer", false);
    for (foreign, alone) in foreign(&repository, "run") {
        let nested = put_index_of(&repository, &[foreign.clone(), image.clone()]);
        for index in [vec![foreign.clone(), image.clone()], vec![nested]] {
            repository.put_index("run", &index);
            let found = repository.image("run").unwrap();
            assert_eq!(found.digest().to_string(), image["digest"].as_str().unwrap(), "{foreign}");
        }
        repository.put_index("run", std::slice::from_ref(&foreign));
        let error = repository.image("run").unwrap_err().to_string();
        assert!(error.contains(alone), "{foreign}: {error}");
        // The name of the layout stands for it.
        let mut ours = foreign;
        ours["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        repository.put_index("run", &[ours.clone(), with_platform(image.clone(), "arm64", None)]);
        let is_understood = ours["digest"].as_str().unwrap().starts_with("sha256:");
        assert_eq!(repository.image("run").is_err(), is_understood, "{ours}");
    }
    for digest in ["sha256:0", "nonsense", ":x", "sha512:"] {
        repository.put_index(
            "run",
            &[json!({"mediaType": media::MANIFEST, "digest": digest, "size": 1}), image.clone()],
        );
        let error = repository.image("run").unwrap_err().to_string();
        assert!(error.contains("index.json` is malformed"), "{digest}: {error}");
    }
}

#[test]
fn what_is_foreign_stays_with_its_blobs() {
    let listed = |repository: &Repository| -> Json {
        let index = fs::read(repository.path("app").path().join("index.json")).unwrap();
        serde_json::from_slice::<Json>(&index).unwrap()["manifests"].clone()
    };
    for nested in [false, true] {
        let repository = Repository::new();
        let foreign: Vec<Json> =
            foreign(&repository, "app").into_iter().map(|(foreign, _)| foreign).collect();
        let kept = repository.snapshot();
        if nested {
            let name = json!({"org.opencontainers.image.ref.name": "latest"});
            let image = with_platform(repository.put_image("app", "arm64", b"layer", false), "arm64", None);
            let members: Vec<&Json> = foreign.iter().chain([&image]).collect();
            let text = json!({"schemaVersion": 2, "manifests": members}).to_string();
            let digest = repository.put_blob("app", text.as_bytes());
            repository.put_index(
                "app",
                &[json!({"mediaType": media::INDEX, "digest": digest, "size": text.len(), "annotations": name})],
            );
        } else {
            repository.put_index("app", &foreign);
        }
        export(&repository, "app", "amd64", &[b"new"]);
        repository.age("app");
        let layout = repository.open("app").unwrap();
        let later = SystemTime::now() + 2 * GRACE;
        let (path, index) = (repository.path("app"), &layout.index().manifests);
        collect::collect_at(&Dir::open(path.path()).unwrap(), &[index], SystemTime::UNIX_EPOCH, later)
            .unwrap();
        let mut members = listed(&repository);
        if nested {
            let index: Digest = members[0]["digest"].as_str().unwrap().parse().unwrap();
            let text = fs::read(blob_path(repository.path("app").path(), &index)).unwrap();
            members = serde_json::from_slice::<Json>(&text).unwrap()["manifests"].clone();
        }
        for foreign in &foreign {
            assert!(members.as_array().unwrap().contains(foreign), "{foreign} is not in {members}");
        }
        for (path, bytes) in kept {
            assert!(path.is_dir() || fs::read(&path).unwrap() == bytes, "{}", path.display());
        }
        repository.open("app").unwrap().image(&Platform::linux("amd64")).unwrap();
    }
}
