//! The Cloud Native Buildpacks contract as types: what the platform and buildpack specifications put into files,
//! labels and version numbers. Parsing and printing only; nothing here reads a file or looks at the environment.
//!
//! Files of other programs are read leniently: unknown keys are no error.

pub mod analyzed;
pub mod api;
mod bom;
pub mod build_log;
pub mod build_toml;
pub mod builder;
pub mod buildpack;
pub mod built;
pub mod cache;
pub mod descriptor;
pub mod excerpt;
pub mod extend;
pub mod group;
pub mod json;
pub mod label;
pub mod launch;
pub mod launch_toml;
pub mod layer;
pub mod metadata;
mod metadata_toml;
pub mod module;
pub mod order;
pub mod plan;
pub mod project;
pub mod report;
pub mod run;
pub mod sbom;
pub mod system;
pub mod time;
pub mod toml_text;

pub use metadata::Metadata;

/// `skip_serializing_if` wants a function that takes a reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
