//! A log that nobody reads.

use std::io::{Write, sink};

use drydock_phases::create::Step;
use drydock_phases::{Level, Log, Output};

/// Says nothing.
pub(super) struct Silent;

impl Log for Silent {
    fn log(&self, _: Level, _: &str) {}

    fn phase(&self, _: Step) {}

    fn output(&self, _: &str) -> Box<dyn Output + '_> {
        unreachable!("nothing here has output")
    }

    fn error_output(&self, _: &str) -> Box<dyn Write + Send + '_> {
        Box::new(sink())
    }
}
