//! `<layers>/config/metadata.toml`: the buildpacks and processes of the app image.

use alloc::vec::Vec;

use crate::api::BuildpackApi;
use crate::document::{Document, Table};
use crate::error::{Error, Failure};

/// What the launcher needs to know of the app image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// In the order in which they were run.
    pub(crate) buildpacks: Vec<Buildpack>,
    /// In the order in which they stand in the file.
    pub(crate) processes: Vec<Process>,
}

/// A buildpack that took part in the build.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Buildpack {
    pub(crate) id: Vec<u8>,
    pub(crate) api: BuildpackApi,
}

/// A process that can be started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// The name it is called by; empty for a command of the user's.
    pub(crate) r#type: Vec<u8>,
    /// The program, and arguments that are always given.
    pub(crate) command: Vec<Vec<u8>>,
    pub(crate) args: Vec<Vec<u8>>,
    /// Started without a shell.
    pub(crate) direct: bool,
    /// Empty for a command of the user's.
    pub(crate) buildpack_id: Vec<u8>,
    /// Empty for the app directory.
    pub(crate) working_dir: Vec<u8>,
    /// The execution environments that it is for; empty for all.
    pub(crate) exec_env: Vec<Vec<u8>>,
}

impl Metadata {
    /// Reads the file's contents, and checks that every buildpack's API is supported.
    pub(crate) fn parse(contents: &[u8]) -> Result<Self, Failure> {
        let (buildpacks, processes) = parse(contents).map_err(Failure::metadata)?;
        let verified = buildpacks.into_iter().map(|(id, api)| {
            let api = BuildpackApi::verify(&id, &api)?;
            Ok(Buildpack { id, api })
        });
        Ok(Self { buildpacks: verified.collect::<Result<_, _>>()?, processes })
    }
}

type IdAndApi = (Vec<u8>, Vec<u8>);

fn parse(contents: &[u8]) -> Result<(Vec<IdAndApi>, Vec<Process>), Error> {
    let document = Document::parse(contents)?;
    let buildpacks = document.root().tables("buildpacks")?.into_iter().map(id_and_api);
    let processes = document.root().tables("processes")?.into_iter().map(process);
    Ok((buildpacks.collect::<Result<_, _>>()?, processes.collect::<Result<_, _>>()?))
}

fn id_and_api(table: Table<'_, '_>) -> Result<IdAndApi, Error> {
    Ok((table.string("id")?.into(), table.string("api")?.into()))
}

fn process(table: Table<'_, '_>) -> Result<Process, Error> {
    Ok(Process {
        r#type: table.string("type")?.into(),
        command: table.string_or_strings("command")?,
        args: table.strings("args")?,
        direct: table.boolean("direct")?,
        buildpack_id: table.string("buildpack-id")?.into(),
        working_dir: table.string("working-dir")?.into(),
        exec_env: table.strings("exec-env")?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_is_there() {
        let metadata = Metadata::parse(
            br#"
            buildpack-default-process-type = "web"
            [[bom]]
            name = "unknown"
            [[buildpacks]]
            id = "acme/a"
            version = "1"
            API = "0.10"
            [[processes]]
            type = "web"
            command = ["bash", "-c"]
            args = ["one", "two"]
            direct = true
            buildpack-id = "acme/a"
            Working-Dir = "/tmp"
            exec-env = ["*"]
            [[processes]]
            type = "old"
            command = "echo $HOME"
            "#,
        )
        .unwrap();
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(metadata.buildpacks.len(), 1);
        assert_eq!(metadata.buildpacks[0].id, b"acme/a");
        assert_eq!(
            metadata.processes,
            [
                Process {
                    r#type: b"web".to_vec(),
                    command: words(&["bash", "-c"]),
                    args: words(&["one", "two"]),
                    direct: true,
                    buildpack_id: b"acme/a".to_vec(),
                    working_dir: b"/tmp".to_vec(),
                    exec_env: words(&["*"]),
                },
                Process { r#type: b"old".to_vec(), command: words(&["echo $HOME"]), ..Process::default() },
            ]
        );
        assert_eq!(Metadata::parse(b"").unwrap(), Metadata { buildpacks: Vec::new(), processes: Vec::new() });
    }

    #[test]
    fn says_what_is_wrong() {
        for (contents, code, message) in [
            (
                "a = \n",
                1,
                "failed to read metadata: toml: line 1: string values must be quoted, expected literal string",
            ),
            (
                "processes = 1",
                1,
                "failed to read metadata: toml: line 1: \"processes\" must be an array of tables, but is of type integer",
            ),
            (
                "processes = [1]",
                1,
                "failed to read metadata: toml: line 1: \"processes\" must be an array of tables, but is of type array",
            ),
            (
                "[[processes]]\ndirect = \"yes\"",
                1,
                "failed to read metadata: toml: line 2: \"direct\" must be a boolean, but is of type string",
            ),
            (
                "[[processes]]\nargs = [\"a\", 1]",
                1,
                "failed to read metadata: toml: line 2: \"args\" must be an array of strings, but is of type array",
            ),
            (
                "[[processes]]\ncommand = 1",
                1,
                "failed to read metadata: toml: line 2: \"command\" must be a string or an array of strings, but is of type integer",
            ),
            (
                "[[processes]]\ntype = 1",
                1,
                "failed to read metadata: toml: line 2: \"type\" must be a string, but is of type integer",
            ),
            (
                "[[buildpacks]]\nid = \"a\"\napi = \"0.1\"",
                12,
                "failed to set API for buildpack 'a': buildpack API version '0.1' is incompatible with the lifecycle",
            ),
            ("[[buildpacks]]\nid = \"a\"\n", 12, "failed to parse buildpack API '' for buildpack 'a'"),
        ] {
            let failure = Metadata::parse(contents.as_bytes()).unwrap_err();
            assert_eq!((&*failure.message, failure.code), (message, code), "{contents}");
        }
        let failure = Metadata::parse(b"a = 1\nb = \"\xff\"").unwrap_err();
        assert_eq!(failure.message, "failed to read metadata: toml: line 2: the text is not valid UTF-8");
    }

    proptest! {
        #[test]
        fn never_panics(contents: Vec<u8>) {
            let _ = Metadata::parse(&contents);
        }

        #[test]
        fn never_panics_on_what_looks_like_toml(contents in r#"(\[\[(processes|buildpacks)\]\]\n|(type|args|api) = (["\[\]{}a1.]{0,6})\n){0,6}"#) {
            let _ = Metadata::parse(contents.as_bytes());
        }
    }
}
