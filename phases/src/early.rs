//! Phases that read images: a platform may keep these as root with mode 0600, so they are opened before root is dropped.

use std::path::PathBuf;

use drydock_layout::Early;

use crate::{analyze, create, export, rebase, restore};

/// Inputs of a phase that reads images.
pub trait ReadsImages {
    /// The folders of the layouts that it may read.
    fn layouts(&self) -> Vec<PathBuf>;

    /// Takes what was opened of them.
    fn keep(&mut self, early: &Early);
}

macro_rules! reads_images {
    ($($phase:ident),*) => {$(
        impl ReadsImages for $phase::Inputs {
            fn layouts(&self) -> Vec<PathBuf> {
                self.reads()
            }

            fn keep(&mut self, early: &Early) {
                self.early = early.clone();
            }
        }
    )*};
}

reads_images!(analyze, restore, export, rebase);

impl ReadsImages for create::Inputs {
    /// What the exporter reads, the analyzer names.
    fn layouts(&self) -> Vec<PathBuf> {
        self.analyze.reads()
    }

    fn keep(&mut self, early: &Early) {
        self.analyze.keep(early);
        self.restore.keep(early);
        self.export.keep(early);
    }
}
