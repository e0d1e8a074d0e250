//! The order of a build: the builder's, or what the user gives in its place, before it and after it.

use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_images::builder::given::Place;
use drydock_images::import::Source;
use drydock_sandbox::tree;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::module::dir_name;
use drydock_spec::order::{OrderElement, OrderGroup, OrderToml};
use drydock_spec::toml_text;

use super::descriptor::Inline;
use crate::cli_sandboxed::Build;
use crate::exit::Usage;

/// Bytes that a builder's `order.toml` may have.
const MAX_ORDER: u64 = 4 << 20;

/// Versions of one buildpack that are looked at.
const MAX_VERSIONS: usize = 1000;

/// What stands for the builder's own order, and before the name of a buildpack that is the builder's.
const FROM_BUILDER: [&str; 2] = ["from=builder", "urn:cnb:builder"];

/// A buildpack or an extension that the user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// As it stands on the command line.
    Named(String),
    /// Its script stands in `project.toml`.
    Inline(Inline),
}

/// One that is not the builder's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Elsewhere {
    At(Place),
    Url(String),
    Inline(Inline),
}

/// What a text means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'t> {
    /// The builder's whole order.
    Order,
    /// One of the builder's: its ID, and its version unless there is only one.
    Own(&'t str, Option<&'t str>),
    Elsewhere(Elsewhere),
}

/// Makes that one is where the phases look for it; gives its name.
pub(super) type Bring<'b> = dyn FnMut(ModuleKind, &Elsewhere) -> Result<OrderElement> + 'b;

/// A builder, and what there is besides.
pub(super) struct Choice<'a> {
    /// The builder's files.
    pub(super) builder: &'a Path,
    /// Whether the repository has an image of this name.
    pub(super) is_image: &'a dyn Fn(&str) -> bool,
    pub(super) bring: &'a mut Bring<'a>,
}

/// The order of a builder with these files; none if it has none.
pub(super) fn of_builder(files: &Path) -> Result<Option<OrderToml>> {
    let failed = || format!("cannot read the builder's /cnb/order.toml in `{}`", files.display());
    let text = tree::read(files, "/cnb/order.toml", MAX_ORDER).with_context(failed)?;
    text.map(|text| toml_text::from_str(&text).with_context(failed)).transpose()
}

impl Choice<'_> {
    /// The order; none if it is the builder's own.
    pub(super) fn order(mut self, options: &Build) -> Result<Option<OrderToml>> {
        let Build { buildpack, pre_buildpack, post_buildpack, extension, .. } = options;
        if [buildpack, pre_buildpack, post_buildpack, extension].iter().all(|list| list.is_empty()) {
            return Ok(None);
        }
        let mut order = if buildpack.is_empty() { self.own()? } else { self.given(buildpack)? };
        let before = self.elements(ModuleKind::Buildpack, pre_buildpack)?;
        let after = self.elements(ModuleKind::Buildpack, post_buildpack)?;
        for group in &mut order.order {
            group.group.splice(0..0, before.iter().cloned());
            group.group.extend(after.iter().cloned());
        }
        let extensions = self.elements(ModuleKind::Extension, extension)?;
        if order.order_extensions.is_empty() && !extensions.is_empty() {
            order.order_extensions.push(OrderGroup::default());
        }
        for group in &mut order.order_extensions {
            group.group.extend(extensions.iter().cloned());
        }
        Ok(Some(order))
    }

    /// The builder's order.
    fn own(&self) -> Result<OrderToml> {
        of_builder(self.builder)?
            .context("the builder has no order: its /cnb/order.toml is missing, or too long")
    }

    /// One group, or as many as the builder has if its order is part of it.
    fn given(&mut self, buildpacks: &[Asked]) -> Result<OrderToml> {
        let mut order = OrderToml { order: vec![OrderGroup::default()], ..OrderToml::default() };
        let mut has_own = false;
        for asked in buildpacks {
            if let Some(element) = self.element(ModuleKind::Buildpack, asked)? {
                order.order.iter_mut().for_each(|group| group.group.push(element.clone()));
                continue;
            }
            if has_own {
                return Err(Usage("the builder's order is named twice (from=builder)".to_owned()).into());
            }
            has_own = true;
            let (first, own) = (order.order.remove(0), self.own()?);
            let joined =
                |group: OrderGroup| OrderGroup { group: [first.group.clone(), group.group].concat() };
            order.order = own.order.into_iter().map(joined).collect();
            order.order_extensions = own.order_extensions;
        }
        Ok(order)
    }

    fn elements(&mut self, kind: ModuleKind, asked: &[Asked]) -> Result<Vec<OrderElement>> {
        let whole = || Usage("the builder's order can stand after --buildpack only".to_owned());
        asked.iter().map(|asked| Ok(self.element(kind, asked)?.ok_or_else(whole)?)).collect()
    }

    /// A member of groups; none stands for the builder's order.
    fn element(&mut self, kind: ModuleKind, asked: &Asked) -> Result<Option<OrderElement>> {
        let meaning = match asked {
            Asked::Inline(inline) => Meaning::Elsewhere(Elsewhere::Inline(inline.clone())),
            Asked::Named(text) => self.meaning(kind, text)?,
        };
        match meaning {
            Meaning::Order => Ok(None),
            Meaning::Own(id, version) => self.of_builder(kind, id, version).map(Some),
            Meaning::Elsewhere(elsewhere) => (self.bring)(kind, &elsewhere).map(Some),
        }
    }

    /// As `pack` has it: a file comes before one of the builder's, and that before an image.
    fn meaning<'t>(&self, kind: ModuleKind, text: &'t str) -> Result<Meaning<'t>> {
        let split = |text: &'t str| match text.split_once('@') {
            Some((id, version)) => Meaning::Own(id, Some(version)),
            None => Meaning::Own(text, None),
        };
        let at = |place| Ok(Meaning::Elsewhere(Elsewhere::At(place)));
        for prefix in FROM_BUILDER {
            match text.strip_prefix(prefix) {
                Some("") => return Ok(Meaning::Order),
                Some(rest) if rest.starts_with(':') => return Ok(split(&rest[1..])),
                _ => {}
            }
        }
        if text.starts_with("urn:") {
            let text =
                format!("`{text}`: no registry of buildpacks is asked: name an image, a file or a URL");
            return Err(Usage(text).into());
        }
        if let Some(path) = text.strip_prefix("file://") {
            return at(Place::Path(path.into()));
        }
        match text.parse::<Source>().map_err(|error| Usage(error.to_string()))? {
            Source::Url(url) => return Ok(Meaning::Elsewhere(Elsewhere::Url(url))),
            Source::Registry(name) => return at(Place::Image(name)),
            Source::Layout { dir, tag } => return at(Place::Layout(dir, tag)),
            _ => {}
        }
        if text.starts_with(['/', '.']) || Path::new(text).exists() {
            return at(Place::Path(text.into()));
        }
        let own = split(text);
        if let Meaning::Own(id, _) = own
            && self.versions(kind, id)?.is_empty()
        {
            if (self.is_image)(text) {
                return at(Place::Image(text.to_owned()));
            }
            let text = format!(
                "the builder has no {kind} `{id}`, and there is neither a file nor an image `{text}` (a folder, a file or an \
                 image in the layout repository)"
            );
            return Err(Usage(text).into());
        }
        Ok(own)
    }

    /// The versions that the builder has.
    fn versions(&self, kind: ModuleKind, id: &str) -> Result<Vec<String>> {
        let folder = format!("/{}/{}", kind.dir(), dir_name(id));
        tree::list(self.builder, &folder, MAX_VERSIONS)
            .with_context(|| format!("cannot list the builder's {folder}"))
    }

    fn of_builder(&self, kind: ModuleKind, id: &str, version: Option<&str>) -> Result<OrderElement> {
        let there = self.versions(kind, id)?;
        let listed = there.join(", ");
        let version = match (version, there.as_slice()) {
            (Some(version), there) if there.iter().any(|one| one == version) => version,
            (None, [only]) => only,
            (_, []) => return Err(Usage(format!("the builder has no {kind} `{id}`")).into()),
            (Some(version), _) => {
                let text = format!("the builder has no version `{version}` of `{id}`; it has {listed}");
                return Err(Usage(text).into());
            }
            (None, _) => {
                let text =
                    format!("the builder has several versions of `{id}`: name one of {listed} after an @");
                return Err(Usage(text).into());
            }
        };
        Ok(OrderElement { id: id.to_owned(), version: version.to_owned(), optional: false })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Builder(tempfile::TempDir);

    impl Builder {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for folder in
                ["buildpacks/acme_a/1", "buildpacks/acme_b/1", "buildpacks/acme_b/2", "extensions/acme_e/1"]
            {
                fs::create_dir_all(dir.path().join("cnb").join(folder)).unwrap();
            }
            let order = "order = [{ group = [{ id = 'acme/a', version = '1' }] }, { group = [{ id = 'acme/b', version = '2', \
                         optional = true }] }]\norder-extensions = [{ group = [{ id = 'acme/e', version = '1' }] }]\n";
            fs::write(dir.path().join("cnb/order.toml"), order).unwrap();
            Self(dir)
        }

        /// Groups, and after a `+` those of extensions; or what is wrong.
        fn order(&self, args: &[&str]) -> Result<String, String> {
            let mut bring = |kind: ModuleKind, elsewhere: &Elsewhere| {
                let id = match elsewhere {
                    Elsewhere::At(Place::Path(path)) => format!("path:{}", path.display()),
                    Elsewhere::At(Place::Image(name)) => format!("image:{name}"),
                    Elsewhere::At(Place::Layout(dir, tag)) => format!("layout:{}:{tag:?}", dir.display()),
                    Elsewhere::Url(url) => url.clone(),
                    Elsewhere::Inline(inline) => inline.id.clone(),
                };
                let version = if kind == ModuleKind::Extension { "e" } else { "0" };
                Ok(OrderElement { id, version: version.to_owned(), optional: false })
            };
            let choice = Choice {
                builder: self.0.path(),
                is_image: &|name| name.starts_with("acme/image"),
                bring: &mut bring,
            };
            let order =
                choice.order(&Build::of(&[&["app"], args].concat())).map_err(|error| format!("{error:#}"))?;
            let Some(order) = order else { return Ok("the builder's".to_owned()) };
            let group = |group: &OrderGroup| {
                let names = group.group.iter().map(|one| format!("{}@{}", one.id, one.version));
                names.collect::<Vec<_>>().join(" ")
            };
            let groups = |groups: &[OrderGroup]| groups.iter().map(group).collect::<Vec<_>>().join(" | ");
            Ok(format!("{} + {}", groups(&order.order), groups(&order.order_extensions)))
        }
    }

    #[test]
    fn orders_are_joined() {
        let builder = Builder::new();
        for (args, want) in [
            (&[][..], "the builder's"),
            (&["-b", "acme/a"], "acme/a@1 + "),
            (&["-b", "acme/b@2", "-b", "acme/a"], "acme/b@2 acme/a@1 + "),
            (&["-b", "acme/b@2,acme/a"], "acme/b@2 acme/a@1 + "),
            (&["-b", "from=builder:acme/b@1", "-b", "urn:cnb:builder:acme/a"], "acme/b@1 acme/a@1 + "),
            (&["-b", "from=builder"], "acme/a@1 | acme/b@2 + acme/e@1"),
            (
                &["-b", "./x", "-b", "urn:cnb:builder", "-b", "/y"],
                "path:./x@0 acme/a@1 path:/y@0 | path:./x@0 acme/b@2 path:/y@0 + acme/e@1",
            ),
            (
                &["--pre-buildpack", "./x", "--pre-buildpack", "./y", "--post-buildpack", "acme/b@1"],
                "path:./x@0 path:./y@0 acme/a@1 acme/b@1 | path:./x@0 path:./y@0 acme/b@2 acme/b@1 + acme/e@1",
            ),
            (&["-b", "acme/a", "--post-buildpack", "./x"], "acme/a@1 path:./x@0 + "),
            (&["--extension", "./x"], "acme/a@1 | acme/b@2 + acme/e@1 path:./x@e"),
            (&["-b", "acme/a", "--extension", "acme/e"], "acme/a@1 + acme/e@1"),
            (&["-b", "https://example.com/a.cnb"], "https://example.com/a.cnb@0 + "),
            (&["-b", "file:///a.cnb"], "path:/a.cnb@0 + "),
            (&["-b", "docker://acme/p"], "image:acme/p@0 + "),
            (&["-b", "acme/image:1"], "image:acme/image:1@0 + "),
            (&["-b", "oci:dir:tag"], "layout:dir:Some(\"tag\")@0 + "),
            // A folder of this name is here, where tests run.
            (&["-b", "src"], "path:src@0 + "),
        ] {
            assert_eq!(builder.order(args).as_deref(), Ok(want), "{args:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let builder = Builder::new();
        for (args, says) in [
            (["-b", "acme/c"], "has no buildpack `acme/c`"),
            (["-b", "from=builder:acme/c"], "has no buildpack `acme/c`"),
            (["-b", "acme/b"], "several versions"),
            (["-b", "acme/b@3"], "has no version `3`"),
            (["-b", "../../etc"], "path:"),
            (["-b", "from=builder,from=builder"], "twice"),
            (["-b", "urn:cnb:registry:acme/a"], "no registry of buildpacks"),
            (["-b", "oci:"], "names no place"),
            (["--pre-buildpack", "from=builder"], "after --buildpack only"),
            (["--extension", "from=builder"], "after --buildpack only"),
            (["--extension", "acme/a"], "has no extension `acme/a`"),
        ] {
            let found = builder.order(&args);
            let text = found.unwrap_or_else(|error| error);
            assert!(text.contains(says), "{args:?}: {text}");
        }
        fs::remove_file(builder.0.path().join("cnb/order.toml")).unwrap();
        assert!(builder.order(&["--post-buildpack", "acme/a"]).unwrap_err().contains("no order"));
    }
}
