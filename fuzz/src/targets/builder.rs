//! Builders and buildpacks of others' files: `builder.toml`, `buildpack.toml`, `package.toml`, `lifecycle.toml`. What is made of them can be looked
//! at, and says what they say; else nothing is made.
//!
//! The parts of an input are these four.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use drydock_encode::compress::Compression;
use drydock_images::assemble::{Parts, assemble};
use drydock_images::builder::{Options, create, inspect, package};
use drydock_images::watch::Nobody;
use drydock_images::{Name, Repository, flatten};
use drydock_layout::Durability;
use drydock_model::config::ImageConfig;
use drydock_model::manifest::Annotations;
use drydock_model::platform::Platform;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::json;
use drydock_spec::module::{ModuleName, ModuleToml};

use super::{Target, parts, roughly};

pub(crate) const TARGET: Target = Target {
    name: "builder",
    longest: 1 << 13,
    words: &[
        b"\n====\n",
        b"\n[build]\nimage = 'build'\n",
        b"\n[[run.images]]\nimage = 'run'\n",
        b"\n[stack]\nid = 's'\nbuild-image = 'build'\nrun-image = 'run'\n",
        b"\n[[buildpacks]]\nuri = 'module'\n",
        b"\n[[extensions]]\nuri = 'module'\n",
        b"\n[[order]]\n[[order.group]]\nid = 'acme/a'\n",
        b"\n[[order-extensions]]\n[[order-extensions.group]]\nid = 'acme/a'\n",
        b"\n[[system.pre.buildpacks]]\nid = 'acme/a'\n",
        b"\n[[build.env]]\nname = 'A'\nvalue = 'b'\n",
        b"\nsuffix = 'append'\ndelim = ':'\n",
        b"\n[lifecycle]\nuri = 'lifecycle'\n",
        b"\nversion = '1'\n",
        b"\noptional = true\n",
        b"\n[[targets]]\nos = 'linux'\narch = 'amd64'\n",
        b"\n[[stacks]]\nid = '*'\n",
        b"\n[[dependencies]]\nuri = 'module'\n",
        b"\napi = '0.10'\n",
        b"\n[extension]\nid = 'acme/a'\n",
        b"uri = '.'\n",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    // Folders of this machine are not of interest, and may be large.
    let leads_out = [&b"'/"[..], b"\"/", b"\n/", b"//", b"..", b"\\"];
    if leads_out.iter().any(|text| input.windows(text.len()).any(|bytes| bytes == *text)) {
        return "elsewhere".into();
    }
    let mut parts = parts(input);
    let mut part = || parts.next().and_then(|part| str::from_utf8(part).ok()).unwrap_or_default();
    let [builder, module, packaged, lifecycle] = [(); 4].map(|()| part());
    let dir = tempfile::tempdir().expect("there is room");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("there is room");
        fs::write(&path, text).expect("there is room");
        let mode = if name.contains('.') { 0o644 } else { 0o755 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    write("builder.toml", builder);
    write("module/buildpack.toml", module);
    write("module/extension.toml", module);
    write("module/package.toml", packaged);
    write("module/bin/detect", "");
    write("module/bin/build", "");
    write("lifecycle/lifecycle.toml", lifecycle);
    for name in ["analyzer", "builder", "creator", "detector", "exporter", "launcher", "restorer"] {
        write(&format!("lifecycle/lifecycle/{name}"), "");
    }
    let said = [made(dir.path()), described(module)].join(";");
    said.replace(&*dir.path().to_string_lossy(), "")
}

fn options() -> Options {
    let write = flatten::Options {
        compression: Compression::NONE,
        threads: NonZeroUsize::MIN,
        durability: Durability::InMemory,
    };
    Options { platform: Platform::linux("amd64"), write, without: Vec::new() }
}

/// A builder, and a package.
fn made(dir: &Path) -> String {
    let repository = Repository::new(&dir.join("r")).expect("it is a path");
    let options = options();
    let build = repository.locate("build").expect("it is a name");
    let config: ImageConfig = serde_json::from_str(
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"User":"1000:1000","Env":["CNB_USER_ID=1000","CNB_GROUP_ID=1000"]}}"#,
    )
    .expect("it is one");
    let parts = Parts { base: None, layers: &[], config, annotations: Annotations::new() };
    assemble(parts, None, &build, false, options.write, &Nobody).expect("there is room");
    let lifecycles = [dir.join("lifecycle")];
    let to = repository.locate("new").expect("it is a name");
    let created = create::create(&repository, &to, &dir.join("builder.toml"), &lifecycles, &options, &Nobody);
    let created = told(&repository, &to, created.map(|created| created.modules.len()), |name| {
        let (name, layout) = repository.open(name).expect("it was just made");
        let image = layout.image(&options.platform).expect("it is for this one");
        let inspected = inspect::inspect(&name, &image).expect("it is a builder");
        assert!(inspected.problems.is_empty(), "{:?}", inspected.problems);
    });
    let package = repository.locate("package").expect("it is a name");
    let packaged = package::package(&repository, &dir.join("module"), &package, &options, &Nobody);
    let packaged = told(&repository, &package, packaged.map(|packaged| packaged.modules.len()), |name| {
        repository.open(name).expect("it was just made");
    });
    format!("{created};{packaged}")
}

fn told(repository: &Repository, to: &Name, made: Result<usize>, check: impl FnOnce(&str)) -> String {
    match made {
        Ok(modules) => {
            check(to.text());
            format!("{}", roughly(modules))
        }
        Err(error) => {
            assert!(repository.open(to.text()).is_err(), "it failed, and it is there: {error:#}");
            format!("{error:#}")
        }
    }
}

/// What stands in a descriptor.
fn described(text: &str) -> String {
    let tell = |kind: ModuleKind| {
        let module = match ModuleToml::parse(kind, text) {
            Ok(module) => module,
            Err(error) => return error.to_string().lines().last().unwrap_or_default().to_owned(),
        };
        let label = json::to_string(&module.layer("sha256:x".into())).expect("it is JSON");
        let again: serde_json::Value = serde_json::from_str(&label).expect("it is JSON");
        assert_eq!(again["layerDiffID"], "sha256:x");
        format!("{}", ModuleName::new(&module.facts.id, &module.facts.version).is_ok())
    };
    [tell(ModuleKind::Buildpack), tell(ModuleKind::Extension)].concat()
}
