//! Under which names the new run image is known: to the user, and to the app image's label.

use std::iter;

use anyhow::anyhow;
use drydock_layout::Image;
use drydock_model::digest::Digest;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::analyzed::{LayersMetadata, RunImageForRebase, Stack, StackRunImage};
use drydock_spec::label;

use super::Inputs;
use crate::{Error, Log, run_image};

/// Where the run image lies that the label names, the best of its mirrors. A label without names, of a build whose
/// builder did not know the run image, still tells the place.
pub(super) fn run_image_path(metadata: &LayersMetadata, inputs: &Inputs) -> Result<LayoutPath, Error> {
    if let Some(names) = in_label(metadata, inputs) {
        return run_image::by_mirrors(
            &names,
            &inputs.previous_image,
            &inputs.output.layout_dir,
            &inputs.early,
        )
        .map(|(_, path)| path);
    }
    match inputs.output.layout_dir.resolve_identifier(&metadata.run_image.reference) {
        Ok((path, _)) => Ok(path),
        Err(_no_identifier) => {
            Err(Error::from(anyhow!("-run-image is required when there is no run image metadata available"))
                .with_help(format!(
                    "the label `{}` of the app image names no run image: give -run-image",
                    label::LIFECYCLE_METADATA
                )))
        }
    }
}

/// All places where it may lie.
pub(super) fn run_image_paths(metadata: &LayersMetadata, inputs: &Inputs) -> Vec<LayoutPath> {
    let layout_dir = &inputs.output.layout_dir;
    match in_label(metadata, inputs) {
        Some(names) => {
            let names = iter::once(&names.image).chain(&names.mirrors);
            names.filter_map(|name| layout_dir.resolve(name).ok()).collect()
        }
        None => run_image_path(metadata, inputs).into_iter().collect(),
    }
}

/// The names in the label.
fn in_label(metadata: &LayersMetadata, inputs: &Inputs) -> Option<StackRunImage> {
    let RunImageForRebase { image, mirrors, .. } = &metadata.run_image;
    if inputs.platform_api.has_targets() && !image.is_empty() {
        Some(StackRunImage { image: image.clone(), mirrors: mirrors.clone() })
    } else {
        metadata.stack.clone().map(|stack| stack.run_image).filter(|run_image| !run_image.image.is_empty())
    }
}

/// The label of the rebased image. From Platform API 0.12 on, a run image of a name that the label does not know needs
/// `force`, and then becomes the one that it knows.
pub(super) fn rebased(
    before: &LayersMetadata,
    base: &Image,
    inputs: &Inputs,
    log: &dyn Log,
) -> Result<LayersMetadata, Error> {
    let mut after = before.clone();
    after.run_image.top_layer =
        base.layers().next_back().map(|layer| layer.diff_id.to_string()).unwrap_or_default();
    after.run_image.reference = base.identifier();
    let Some(name) = &inputs.run_image else { return Ok(after) };
    if !inputs.platform_api.has_targets() || is_known(name, before, &inputs.output.layout_dir) {
        return Ok(after);
    }
    let known = match &before.stack {
        _ if !before.run_image.image.is_empty() => label::run_image_to_json(&after.run_image),
        Some(stack) => drydock_spec::json::to_string(&stack.run_image).expect("strings make JSON"),
        None => "not found".to_owned(),
    };
    let objection = format!(
        "rebase app image: new base image '{name}' not found in existing run image metadata: {known}"
    );
    if !inputs.force {
        return Err(Error::from(anyhow!("{objection}; please provide -force to override"))
            .with_help("with -force, later rebases use the new run image too"));
    }
    log.warn(&objection);
    let only = StackRunImage { image: name.clone(), mirrors: Vec::new() };
    after.run_image.image.clone_from(&only.image);
    after.run_image.mirrors.clear();
    after.stack = Some(Stack { run_image: only });
    Ok(after)
}

/// Whether the label has the name, under which the image may be asked for by digest; or the image's place.
fn is_known(name: &str, metadata: &LayersMetadata, layout_dir: &LayoutDir) -> bool {
    let place = |name: &str| {
        let is_digest = |digest: &str| digest.parse::<Digest>().is_ok();
        let name =
            name.rsplit_once('@').filter(|(_, digest)| is_digest(digest)).map_or(name, |(name, _)| name);
        layout_dir.resolve(name).ok()
    };
    let Some(wanted) = place(name) else { return false };
    let run_image = &metadata.run_image;
    let stack = metadata
        .stack
        .iter()
        .flat_map(|stack| std::iter::once(&stack.run_image.image).chain(&stack.run_image.mirrors));
    let known = [&run_image.image, &run_image.reference].into_iter().chain(&run_image.mirrors).chain(stack);
    known.filter_map(|known| place(known)).any(|known| known.path() == wanted.path())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HEX: &str = "d236adfe8074a8947914eae1ca4906c94db1cf6a8576b482a06fcc9eba7c9802";

    fn metadata(image: &str, mirrors: &[&str], stack: Option<&str>, reference: &str) -> LayersMetadata {
        LayersMetadata {
            run_image: RunImageForRebase {
                image: image.to_owned(),
                mirrors: mirrors.iter().map(|&mirror| mirror.to_owned()).collect(),
                reference: reference.to_owned(),
                top_layer: String::new(),
            },
            stack: stack.map(|image| Stack {
                run_image: StackRunImage {
                    image: image.to_owned(),
                    mirrors: vec![format!("mirror.io/{image}")],
                },
            }),
            ..LayersMetadata::default()
        }
    }

    fn inputs(api: u32) -> Inputs {
        let layout_dir = LayoutDir::new(Path::new("/l")).unwrap();
        let app = layout_dir.resolve("mirror.io/app").unwrap();
        Inputs {
            platform_api: drydock_spec::api::PlatformApi::minor(api),
            previous_image: app.clone(),
            output: crate::rebase::Output {
                names: vec![app],
                layout_dir,
                link: drydock_layout::LinkMode::Auto,
                durability: drydock_layout::Durability::InMemory,
                report_path: "/report.toml".into(),
            },
            run_image: None,
            force: false,
            early: drydock_layout::Early::default(),
        }
    }

    #[test]
    fn the_label_names_the_run_image() {
        let place = format!("/l/example.com/run/base@sha256:{HEX}");
        let elsewhere = format!("/other/run@sha256:{HEX}");
        for (api, metadata, want) in [
            (12, metadata("reg.io/run", &["mirror.io/run:1"], Some("stack"), &place), "mirror.io/run/1"),
            (12, metadata("reg.io/run", &["other.io/run"], None, &place), "reg.io/run/latest"),
            (
                11,
                metadata("reg.io/run", &["mirror.io/run:1"], Some("stack"), &place),
                "mirror.io/stack/latest",
            ),
            (12, metadata("", &[], Some("stack"), &place), "mirror.io/stack/latest"),
            (12, metadata("", &[], Some(""), &place), "example.com/run/base"),
            (11, metadata("reg.io/run", &[], None, &place), "example.com/run/base"),
            (12, metadata("", &[], None, &elsewhere), "/other/run"),
        ] {
            assert_eq!(run_image_path(&metadata, &inputs(api)).unwrap().path(), Path::new("/l").join(want));
        }
        for reference in ["", "some-id", "/other/run"] {
            let error = run_image_path(&metadata("", &[], None, reference), &inputs(12)).unwrap_err();
            assert!(error.to_string().starts_with("-run-image is required when"), "{error}");
            assert!(error.help.is_some());
        }
    }

    #[test]
    fn names_that_the_label_knows() {
        let metadata = metadata(
            "acme/run:base",
            &["m.io/run"],
            Some("old/run"),
            &format!("/l/e.com/run/x@sha256:{HEX}"),
        );
        let layout_dir = LayoutDir::new(Path::new("/l")).unwrap();
        let by_digest = format!("m.io/run@sha256:{HEX}");
        for (name, want) in [
            ("acme/run:base", true),
            ("docker.io/acme/run:base", true),
            ("/l/index.docker.io/acme/run/base", true),
            (by_digest.as_str(), true),
            ("old/run", true),
            ("mirror.io/old/run", true),
            ("e.com/run:x", true),
            ("acme/run:next", false),
            ("acme/run", false),
            ("/l/index.docker.io/acme/run", false),
            ("Not A Name", false),
        ] {
            assert_eq!(is_known(name, &metadata, &layout_dir), want, "{name}");
        }
    }
}
