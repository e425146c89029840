//! How a command ends badly: one line for the reader, one exit status for the caller.

/// Exit status for a call that cannot be understood.
pub(crate) const USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Printed to stderr as it stands.
    pub(crate) reason: String,
    /// Exit status of the program.
    pub(crate) code: u8,
}

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The work was done and failed, or could not be done.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self::with_code(reason, 1)
    }

    /// The caller's words make no sense.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self::with_code(reason, USAGE)
    }

    /// A failure whose exit status means something to the caller.
    pub(crate) fn with_code(reason: impl Into<String>, code: u8) -> Self {
        Self { reason: reason.into(), code }
    }
}
