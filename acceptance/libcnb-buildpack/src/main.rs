//! A buildpack that installs a greeter: it uses what libcnb.rs offers of the Buildpack API.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use libcnb::build::{BuildContext, BuildResult, BuildResultBuilder};
use libcnb::data::build_plan::BuildPlanBuilder;
use libcnb::data::launch::{Label, LaunchBuilder, ProcessBuilder};
use libcnb::data::sbom::SbomFormat;
use libcnb::data::{layer_name, process_type};
use libcnb::detect::{DetectContext, DetectResult, DetectResultBuilder};
use libcnb::generic::{GenericMetadata, GenericPlatform};
use libcnb::layer::{
    CachedLayerDefinition, InvalidMetadataAction, LayerState, RestoredLayerAction, UncachedLayerDefinition,
};
use libcnb::layer_env::{LayerEnv, ModificationBehavior, Scope};
use libcnb::sbom::Sbom;
use libcnb::{Buildpack, buildpack_main};
use serde::{Deserialize, Serialize};

struct Greeter;

/// The app's file that asks for the greeter: whom to greet.
const FILE: &str = "greet.txt";

/// What the process runs, found by `PATH`.
const SCRIPT: &str = "#!/bin/sh\necho \"$GREETING, $(cat greet.txt)$MARK\"\n";

const LAYER_SBOM: &str =
    r#"{"bomFormat":"CycloneDX","specVersion":"1.5","components":[{"type":"application","name":"greeter"}]}"#;
const LAUNCH_SBOM: &str = r#"{"spdxVersion":"SPDX-2.3","name":"app"}"#;
const BUILD_SBOM: &str = r#"{"bomFormat":"CycloneDX","specVersion":"1.5"}"#;

/// What is remembered of a layer with the greeter.
#[derive(Deserialize, Serialize)]
struct Installed {
    version: i64,
}

const VERSION: i64 = 3;

/// Nothing is remembered of the tools: the table of their layer's metadata is empty, but the library insists on it.
#[derive(Deserialize, Serialize)]
struct Nothing {}

impl Buildpack for Greeter {
    type Platform = GenericPlatform;
    type Metadata = GenericMetadata;
    type Error = io::Error;

    fn detect(&self, context: DetectContext<Self>) -> libcnb::Result<DetectResult, io::Error> {
        if !context.app_dir.join(FILE).exists() {
            return DetectResultBuilder::fail().build();
        }
        let plan = BuildPlanBuilder::new().provides("greeter").requires("greeter").build();
        DetectResultBuilder::pass().build_plan(plan).build()
    }

    fn build(&self, context: BuildContext<Self>) -> libcnb::Result<BuildResult, io::Error> {
        let greeter = context.cached_layer(
            layer_name!("greeter"),
            CachedLayerDefinition {
                build: false,
                launch: true,
                invalid_metadata_action: &|_| InvalidMetadataAction::DeleteLayer,
                restored_layer_action: &|installed: &Installed, _| {
                    if installed.version == VERSION {
                        RestoredLayerAction::KeepLayer
                    } else {
                        RestoredLayerAction::DeleteLayer
                    }
                },
            },
        )?;
        if let LayerState::Restored { .. } = greeter.state {
            println!("The greeter is there");
        } else {
            println!("Installing the greeter");
            let bin = greeter.path().join("bin");
            let script = bin.join("greet");
            fs::create_dir(&bin)
                .and_then(|()| fs::write(&script, SCRIPT))
                .and_then(|()| fs::set_permissions(&script, Permissions::from_mode(0o755)))
                .map_err(libcnb::Error::BuildpackError)?;
            greeter.write_metadata(Installed { version: VERSION })?;
            greeter.write_sboms(&[Sbom::from_bytes(SbomFormat::CycloneDxJson, LAYER_SBOM)])?;
        }

        let tools = context.cached_layer(
            layer_name!("tools"),
            CachedLayerDefinition {
                build: true,
                launch: false,
                invalid_metadata_action: &|_| InvalidMetadataAction::DeleteLayer,
                restored_layer_action: &|_: &Nothing, _| RestoredLayerAction::KeepLayer,
            },
        )?;
        if let LayerState::Restored { .. } = tools.state {
            println!("The tools are there");
        } else {
            println!("Getting the tools");
            fs::write(tools.path().join("tool"), "").map_err(libcnb::Error::BuildpackError)?;
            tools.write_metadata(Nothing {})?;
        }

        let settings = context.uncached_layer(
            layer_name!("settings"),
            UncachedLayerDefinition { build: false, launch: true },
        )?;
        settings.write_env(
            LayerEnv::new()
                .chainable_insert(Scope::Launch, ModificationBehavior::Default, "GREETING", "Hello")
                .chainable_insert(Scope::Build, ModificationBehavior::Override, "GREETING", "not at launch")
                .chainable_insert(Scope::All, ModificationBehavior::Append, "MARK", "!")
                .chainable_insert(Scope::All, ModificationBehavior::Delimiter, "MARK", "?"),
        )?;

        let process = ProcessBuilder::new(process_type!("hello"), ["greet"]).default(true).build();
        let label = Label { key: "com.example.greeter".into(), value: "installed".into() };
        BuildResultBuilder::new()
            .launch(LaunchBuilder::new().process(process).label(label).build())
            .launch_sbom(Sbom::from_bytes(SbomFormat::SpdxJson, LAUNCH_SBOM))
            .build_sbom(Sbom::from_bytes(SbomFormat::CycloneDxJson, BUILD_SBOM))
            .build()
    }
}

buildpack_main!(Greeter);
