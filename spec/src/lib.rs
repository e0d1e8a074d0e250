//! The Cloud Native Buildpacks contract as types: what the platform and buildpack specifications put into files,
//! labels and version numbers. Parsing and printing only; nothing here reads a file or looks at the environment.

pub mod api;
