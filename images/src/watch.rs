//! Who looks on while something takes long.

use std::io;

use drydock_model::reference::LayoutPath;

/// Looks on, and may stop the work.
pub trait Watch: Sync {
    /// A task of so many bytes begins.
    fn begin(&self, task: &str, bytes: u64);

    /// So many more bytes are done. An error stops the work: nothing is left of it, but for whole blobs of an import, which the
    /// next one takes.
    fn advance(&self, bytes: u64) -> io::Result<()>;

    /// The task is done.
    fn end(&self);

    /// Something that is worth a line: a lock that is waited for, a layout that is passed over.
    fn note(&self, text: &str);
}

/// Says whose lock is waited for.
pub(crate) fn waiting(watch: &dyn Watch) -> impl Fn(&LayoutPath) {
    move |path| watch.note(&format!("waiting for another program that writes to `{path}`"))
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Watch for Nobody {
    fn begin(&self, _task: &str, _bytes: u64) {}

    fn advance(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn end(&self) {}

    fn note(&self, _text: &str) {}
}
