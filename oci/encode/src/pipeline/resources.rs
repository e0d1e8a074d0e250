//! How many threads, encoders and chunks a run has.

use super::Settings;
use super::chunk::Chunk;

/// What chunks and encoders may take together, in bytes.
const MEMORY: usize = 56 << 20;

/// So many layers at once are enough: beyond that, cores are better used within them.
const MOST_SOURCES: usize = 8;

/// What a run may use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Threads that run sources, the calling one among them: as many layers are in work at once.
    pub(crate) sources: usize,
    /// Threads that do everything else; and so many encoders.
    pub(crate) workers: usize,
    pub(crate) chunks: usize,
}

impl Resources {
    /// For so many jobs.
    pub(super) fn of(jobs: usize, settings: Settings) -> Self {
        let encoder = settings.compression.encoder_memory();
        let cores = settings.threads.get();
        let sources = jobs.min(cores).min(MOST_SOURCES);
        // For each layer, a chunk that is being filled, and one that waits for its turn.
        let of_sources = 2 * sources;
        let left = MEMORY - of_sources * Chunk::MEMORY;
        // For each worker, a chunk in work and another that waits; where there is no room for that, half as
        // many of these.
        let workers = cores.min(left / (Chunk::MEMORY * 3 / 2 + encoder));
        let chunks = of_sources + (2 * workers).min((left - workers * encoder) / Chunk::MEMORY);
        Self { sources, workers, chunks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grow_with_cores_and_layers_up_to_a_bound() {
        for (compression, cores, jobs, sources, workers, chunks) in [
            ("gzip", 1, 1, 1, 1, 4),
            ("gzip", 1, 9, 1, 1, 4),
            ("gzip", 2, 3, 2, 2, 8),
            ("gzip", 8, 2, 2, 8, 20),
            ("gzip", 8, 100, 8, 8, 32),
            ("gzip", 64, 1, 1, 28, 44),
            ("gzip", 64, 100, 8, 20, 46),
            ("zstd:19", 4, 3, 3, 4, 14),
            ("zstd:19", 64, 1, 1, 7, 16),
            ("zstd:19", 1000, 100, 8, 5, 26),
            ("none", 64, 100, 8, 24, 52),
        ] {
            let threads = cores.try_into().unwrap();
            let settings = Settings { threads, compression: compression.parse().unwrap(), write_out: false };
            let resources = Resources::of(jobs, settings);
            assert_eq!(resources, Resources { sources, workers, chunks }, "{compression} {cores} {jobs}");
            let memory = chunks * Chunk::MEMORY + workers * settings.compression.encoder_memory();
            assert!(memory <= MEMORY, "{compression} {cores} {jobs}: {memory} bytes");
        }
    }
}
