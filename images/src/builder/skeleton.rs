//! A buildpack to begin with: in shell, and whole. It can be packaged, and builds.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use drydock_spec::module::ModuleName;

/// The oldest Buildpack API that has targets: most lifecycles speak it.
const API: &str = "0.10";

const DETECT: &str = r"#!/bin/sh
# Exit code 0: this buildpack takes part; 100: it does not. The working directory is the app's.
set -eu

# TODO: look for what this buildpack knows, like `[ -f package.json ] || exit 100`.
exit 0
";

const BUILD: &str = r#"#!/bin/sh
# Makes layers: folders in $CNB_LAYERS_DIR, each with a file <name>.toml that says what it is for.
set -eu

# TODO: put what the app needs into a layer. This one has a program.
layer=$CNB_LAYERS_DIR/hello
mkdir -p "$layer/bin"
cat >"$layer/bin/hello" <<'END'
#!/bin/sh
echo "Hello from a buildpack."
END
chmod 755 "$layer/bin/hello"
cat >"$CNB_LAYERS_DIR/hello.toml" <<'END'
[types]
launch = true
END

# What the app starts with.
cat >"$CNB_LAYERS_DIR/launch.toml" <<'END'
[[processes]]
type = "web"
command = ["hello"]
default = true
END
"#;

/// Writes the buildpack into a folder that is not there yet, or empty; gives the paths of its files below that.
pub fn write(dir: &Path, name: &ModuleName) -> Result<Vec<&'static str>> {
    let is_free = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("cannot list `{}`", dir.display())),
    };
    if !is_free {
        bail!("`{}` is not empty: name a new folder", dir.display());
    }
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make `{}`", bin.display()))?;
    let files = [
        ("buildpack.toml", 0o666, descriptor(name)),
        ("bin/detect", 0o777, DETECT.to_owned()),
        ("bin/build", 0o777, BUILD.to_owned()),
        ("README.md", 0o666, readme(name)),
    ];
    for (path, mode, text) in &files {
        let path = dir.join(path);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(*mode).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(files.map(|(path, ..)| path).into())
}

fn descriptor(name: &ModuleName) -> String {
    // Neither can have what must be escaped.
    let (id, version) = (name.id(), name.version());
    format!(
        "api = \"{API}\"\n\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"\n\n[[targets]]\nos = \"linux\"\n"
    )
}

fn readme(name: &ModuleName) -> String {
    format!(
        "# {}\n\n\
         `bin/detect` says whether this buildpack takes part in a build, `bin/build` does its part.\n\
         What they are given and what they may write is in the\n\
         [specification](https://github.com/buildpacks/spec/blob/main/buildpack.md).\n\n\
         ```\n\
         drydock buildpack package . -o buildpack.cnb\n\
         ```\n\n\
         makes one file of it, which `builder.toml` can name:\n\n\
         ```toml\n\
         [[buildpacks]]\n\
         uri = \"buildpack.cnb\"\n\n\
         [[order]]\n\
         [[order.group]]\n\
         id = \"{}\"\n\
         ```\n",
        name.id(),
        name.id()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use drydock_spec::buildpack::ModuleKind;
    use drydock_spec::module::ModuleToml;

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let name = ModuleName::new("acme/a", "1.0.0").unwrap();
        let files = write(&dir.path().join("new"), &name).unwrap();
        assert_eq!(files.len(), 4);
        assert!(write(&dir.path().join("new"), &name).is_err());
        assert!(write(&dir.path().join("new/README.md"), &name).is_err());
        let text = fs::read_to_string(dir.path().join("new/buildpack.toml")).unwrap();
        let toml = ModuleToml::parse(ModuleKind::Buildpack, &text).unwrap();
        assert_eq!((toml.facts.id.as_str(), toml.facts.version.as_str()), ("acme/a", "1.0.0"));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join("new/bin/build")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o111, 0o111);
    }
}
