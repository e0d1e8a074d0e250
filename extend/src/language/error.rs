//! What is wrong with a Dockerfile.

/// Why a Dockerfile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem:.1000}")]
pub struct SyntaxError {
    /// The line on which the instruction begins, counted from 1; in a here-document that does not end, the line that begins it.
    pub line: usize,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// What is wrong with something of which somebody else knows the line.
pub(super) type Problem<T> = Result<T, String>;
