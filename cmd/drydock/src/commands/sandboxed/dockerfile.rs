//! Builds an image of a Dockerfile: each stage on the files of its base, each `RUN` in a sandbox.
//!
//! What a step makes is kept in the cache, with its layer, under the key of the step ([`drydock_extend::cache`]).

/// A Dockerfile that is built, and what it is given.
pub(crate) struct Task<'a> {
    /// What it comes to.
    pub(crate) build: &'a Build,
    /// The image that `FROM`, `COPY --from` or a mount names.
    pub(crate) image: &'a dyn Fn(&str, Option<&Platform>) -> Result<Image>,
    /// The folder that files come from.
    pub(crate) context: &'a Path,
    /// What of it is left out.
    pub(crate) ignore: &'a IgnoreRules,
    /// Secrets, by their IDs. They get into no layer, no key and no log.
    pub(crate) secrets: &'a BTreeMap<String, Vec<u8>>,
    /// Downloads what is at a URL into a new file in a folder. Checksums are compared here.
    pub(crate) download: &'a dyn Fn(&str, &Path) -> Result<TempFile>,
    /// How layers are compressed.
    pub(crate) settings: pipeline::Settings,
    /// No file of a layer is later than this, in seconds since 1970 (`SOURCE_DATE_EPOCH`); then everything is said to have been made at
    /// this time.
    pub(crate) latest: Option<i64>,
    /// What each program may use.
    pub(crate) limits: Limits,
    /// The build is stopped then.
    pub(crate) deadline: Option<Instant>,
    /// Whether what earlier builds made is taken.
    pub(crate) uses_cache: bool,
    /// Whom it tells of its steps, and what programs print to.
    pub(crate) listener: &'a dyn Listener,
}

/// Who is told how a build goes.
pub(crate) trait Listener {
    /// A step begins, or is known from an earlier build: the name of its stage, its number and their count there, the instruction.
    fn begins(&self, step: &StepOf<'_>);
    /// Standard output and standard error of the next program.
    fn streams(&self) -> Result<(Stdio, Stdio)>;
}

/// A step, for those who watch.
pub(crate) struct StepOf<'a> {
    pub(crate) stage: &'a PlannedStage,
    /// From 1 on.
    pub(crate) number: usize,
    pub(crate) step: &'a Step,
    pub(crate) is_known: bool,
}

/// What came of it.
pub(crate) struct Built {
    /// The image that the wanted stage begins from, through other stages if need be; none: from nothing. Its layers come first.
    pub(crate) base: Option<Image>,
    /// The layers above the base's, the lowest first.
    pub(crate) layers: Vec<BuiltLayer>,
    /// The configuration with its history; diff IDs are those of the layers when it is written (`NewImage`).
    pub(crate) config: ImageConfig,
}

/// A layer in the cache.
pub(crate) struct BuiltLayer {
    pub(crate) diff_id: DiffId,
    pub(crate) descriptor: Descriptor,
    /// Where the cache has it: a folder with `blobs/sha256`, as [`Transaction::bring_blob`] takes it. It stays as long as this is not dropped.
    pub(crate) kept: Root,
}

impl BuiltLayer {
    /// That folder.
    pub(crate) fn dir(&self) -> &Path;
}

/// Why there is no image.
pub(crate) enum Failure {
    /// A program failed, or was stopped by a signal: the exit code of `drydock`; what happened is said.
    Program(u8),
    /// Something else.
    Other(anyhow::Error),
}

impl Shop {
    /// Builds the wanted stage, with all that it needs.
    pub(crate) fn build_dockerfile(&self, task: &Task<'_>, progress: &Progress) -> Result<Built, Failure>;
}

// A command that calls this enters a room as `User { uid: 0, gid: 0 }` (`sandboxed::enter`), opens the shop
// (`Shop::open(room, &options.sandboxed, &[], progress)`), builds, publishes by a transaction
// (`bring` for `base.layers()`, `bring_blob(layer.dir(), &layer.descriptor)` for the others, `BlobSource::Placed`), drops what was built,
// and ends the shop (`shop.end()`).
