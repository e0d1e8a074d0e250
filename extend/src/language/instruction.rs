//! A Dockerfile as a value.

use super::mount::MountFlag;

/// A Dockerfile. It has a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What takes the meaning from the character after it: `\` or `` ` ``.
    pub escape: char,
    /// The arguments before the first stage.
    pub global_args: Vec<Instruction>,
    /// What each `FROM` begins.
    pub stages: Vec<Stage>,
}

/// A `FROM`, and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Where it begins.
    pub line: usize,
    /// The image that it begins from, with its variables.
    pub base: String,
    /// What comes after `AS`, in lower case.
    pub name: Option<String>,
    /// `--platform`, with its variables.
    pub platform: Option<String>,
    /// What is done.
    pub instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// How it is written: on one line, without here-documents' contents.
    pub text: String,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says. Texts have their quotes and variables, unless it is said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Brings files, archives and downloads.
    Add(Copy),
    /// Names what can be given from outside.
    Arg(Vec<Argument>),
    /// What a container runs, or the arguments of its entrypoint; nothing is expanded.
    Cmd(CommandLine),
    /// Brings files.
    Copy(Copy),
    /// What a container runs; nothing is expanded.
    Entrypoint(CommandLine),
    /// Sets variables.
    Env(Vec<(String, String)>),
    /// Ports that a container listens on.
    Expose(Vec<String>),
    /// How to see whether a container works; none to leave off.
    HealthCheck(Option<HealthCheck>),
    /// Says something of the image.
    Label(Vec<(String, String)>),
    /// Who made the image.
    Maintainer(String),
    /// An instruction for images that begin from this one; nothing is expanded.
    OnBuild(String),
    /// Runs a program.
    Run(Run),
    /// What runs commands that are written for a shell; nothing is expanded.
    Shell(Vec<String>),
    /// The signal that ends a container.
    StopSignal(String),
    /// Who runs programs from here on.
    User(String),
    /// Folders for data that is no part of the image.
    Volume(Vec<String>),
    /// Where programs run from here on.
    WorkDir(String),
}

/// An argument that can be given from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its value unless one is given.
    pub default: Option<String>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// For a shell.
    Shell(String),
    /// A program with its arguments.
    Exec(Vec<String>),
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// What is brought.
    pub sources: Vec<Source>,
    /// Where to.
    pub target: String,
    /// `--from`: another stage or image; nothing is expanded.
    pub from: Option<String>,
    /// `--parents`: the folders that it is in come, too.
    pub parents: bool,
    /// `--chown`: who it belongs to.
    pub chown: Option<String>,
    /// `--chmod`: which permissions it has.
    pub chmod: Option<String>,
    /// `--exclude`: patterns of what is left out.
    pub exclude: Vec<String>,
    /// `--checksum`: of a download.
    pub checksum: Option<String>,
    /// `--unpack`: whether archives are unpacked.
    pub unpack: Option<bool>,
}

/// What `COPY` and `ADD` bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path or a pattern of paths; with `ADD`, maybe an address.
    Path(String),
    /// A file that is written here.
    Here(HereDocument),
}

/// A text in the Dockerfile itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereDocument {
    /// The line that ends it.
    pub name: String,
    /// Whether variables in it have a meaning: the name is not quoted.
    pub expands: bool,
    /// Whether tabs at the beginning of its lines are left out (`<<-`); in `text` they are still there.
    pub strips_tabs: bool,
    /// What is between, with the end of the last line.
    pub text: String,
}

impl HereDocument {
    /// What is in it, without the tabs that are to be left out.
    pub fn contents(&self) -> String {
        if !self.strips_tabs {
            return self.text.clone();
        }
        self.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What runs; nothing is expanded.
    pub command: CommandLine,
    /// What its here-documents hold.
    pub here_documents: Vec<HereDocument>,
    /// Each `--mount`.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Option<String>,
}

/// Which network a program sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// That which the engine gives to programs.
    #[default]
    Default,
    /// None.
    None,
    /// The machine's.
    Host,
}

/// How to see whether a container works. Times are in nanoseconds; what is not given is the engine's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is run; nothing is expanded.
    pub command: CommandLine,
    /// How often.
    pub interval: Option<u64>,
    /// How long it may take.
    pub timeout: Option<u64>,
    /// How long it may fail in the beginning.
    pub start_period: Option<u64>,
    /// How often in the beginning.
    pub start_interval: Option<u64>,
    /// How many failures in turn count.
    pub retries: Option<u64>,
}
