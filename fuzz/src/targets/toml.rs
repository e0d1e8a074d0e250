//! TOML files of platforms, buildpacks and phases.

use std::fmt::Display;

use drydock_spec::analyzed::{Analyzed, Store};
use drydock_spec::api::BuildpackApi;
use drydock_spec::build_toml::BuildToml;
use drydock_spec::buildpack::{BuildpackToml, ExtensionToml};
use drydock_spec::extend::ExtendConfig;
use drydock_spec::group::Group;
use drydock_spec::launch::BuildMetadata;
use drydock_spec::launch_toml::LaunchToml;
use drydock_spec::layer::LayerToml;
use drydock_spec::order::OrderToml;
use drydock_spec::plan::{BuildPlan, Plan};
use drydock_spec::project::ProjectMetadata;
use drydock_spec::report::Report;
use drydock_spec::run::{RunToml, StackToml};
use drydock_spec::system::SystemToml;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "toml",
    longest: 1 << 14,
    words: &[
        b"\n",
        b"[[",
        b"]]",
        b"[a.b]",
        b"[metadata]",
        b"[[processes]]",
        b"[[labels]]",
        b"[[slices]]",
        b"[[bom]]",
        b"[[targets]]",
        b"[[group]]",
        b"[[order]]",
        b"[types]",
        b"launch = true",
        b"direct = true",
        b"command = ['a']",
        b"exec-env = ['*']",
        b"api = '0.10'",
        b"id = 'a'",
        b"version = '1'",
        b"optional = true",
        b"[run-image]",
        b"{ a = 1 }",
        b"= 1979-05-27T07:32:00Z",
        b"= nan",
        b"= -inf",
        b"= 0x7fffffffffffffff",
        b"'''",
        b"\"\"\"",
        b"\\u0000",
        b"\\U0010ffff",
        b"a.b.c = 1",
        b"[[or]]",
        b"requires",
    ],
    can_use: |path, _| path.extension().is_some_and(|extension| extension == "toml"),
    run,
};

fn run(input: &[u8]) -> String {
    let Ok(text) = str::from_utf8(input) else { return "no text".into() };
    let apis = ["0.7", "0.12"].map(|api| api.parse::<BuildpackApi>().expect("this one is supported"));
    [
        again::<Analyzed>(text),
        again::<Store>(text),
        again::<ExtendConfig>(text),
        again::<Group>(text),
        again::<Plan>(text),
        again::<ProjectMetadata>(text),
        again::<Report>(text),
        again::<RunToml>(text),
        again::<StackToml>(text),
        again::<LayerToml>(text),
        read::<BuildToml>(text),
        read::<BuildpackToml>(text),
        read::<ExtensionToml>(text),
        read::<OrderToml>(text),
        read::<BuildPlan>(text),
        read::<SystemToml>(text),
        outcome(&LayerToml::parse(text)),
        outcome(&LaunchToml::parse(text, apis[0])),
        outcome(&LaunchToml::parse(text, apis[1])),
        build_metadata(text),
        layer_metadata(text),
    ]
    .concat()
}

fn read<T: DeserializeOwned>(text: &str) -> String {
    outcome(&toml::from_str::<T>(text))
}

/// Reads, prints, reads and prints: the same must be printed.
fn again<T: Serialize + DeserializeOwned>(text: &str) -> String {
    let parsed = toml::from_str::<T>(text);
    if let Ok(value) = &parsed {
        let printed = toml::to_string(value).expect("what was TOML can be printed");
        let read: T = toml::from_str(&printed).expect("what was printed can be read");
        assert_eq!(toml::to_string(&read).expect("it could be printed before"), printed);
    }
    outcome(&parsed)
}

/// The same, of what has a printer of its own.
fn build_metadata(text: &str) -> String {
    let parsed = toml::from_str::<BuildMetadata>(text);
    if let Ok(metadata) = &parsed {
        let printed = metadata.to_toml();
        let read: BuildMetadata = toml::from_str(&printed).expect("what was printed can be read");
        assert_eq!(read.to_toml(), printed);
    }
    outcome(&parsed)
}

/// Metadata of layers is printed as another program prints it.
fn layer_metadata(text: &str) -> String {
    let parsed = LayerToml::parse(text);
    if let Ok(LayerToml { metadata: Some(metadata), .. }) = &parsed {
        let printed = metadata.to_toml();
        let read = LayerToml::parse(&printed).expect("what was printed can be read").metadata;
        assert_eq!(read.expect("it was printed").to_toml(), printed);
    }
    outcome(&parsed)
}

/// The error's last line says what is wrong; before it are the line and a place in it.
fn outcome<T, E: Display>(parsed: &Result<T, E>) -> String {
    parsed
        .as_ref()
        .map_or_else(|error| error.to_string().lines().last().unwrap_or_default().into(), |_| "ok".to_owned())
        + ";"
}
