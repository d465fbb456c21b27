//! What a run does when something fails.

use crate::error::{Error, Result};

/// The failures of one run.
pub(super) struct Failures {
    /// The first new failure ends the run: the caller undoes all of it.
    strict: bool,
    /// Failures that stood before the run, which it is not to blame for.
    standing: Vec<String>,
    met: Vec<Error>,
}

impl Failures {
    /// Ends a run at a failure that is not one of `standing`.
    pub(super) fn strict(standing: Vec<String>) -> Self {
        Self { strict: true, standing, met: Vec::new() }
    }

    /// Goes on whatever fails.
    pub(super) fn lenient() -> Self {
        Self { strict: false, standing: Vec::new(), met: Vec::new() }
    }

    /// The value, nothing where it failed and the run goes on, or the failure that ends the run.
    pub(super) fn note<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.strict && !self.standing.contains(&error.to_string()) => Err(error),
            Err(error) => {
                self.met.push(error);
                Ok(None)
            }
        }
    }

    /// Everything that failed, with the failure that ended the run, if one did.
    pub(super) fn into_texts(self, end: Result<()>) -> Vec<String> {
        self.met.into_iter().chain(end.err()).map(|error| error.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Result<()> {
        Err(Error::Setup(text.into()))
    }

    #[test]
    fn a_strict_run_ends_at_a_new_failure_only() {
        let mut failures = Failures::strict(vec!["old".into()]);
        assert!(matches!(failures.note(Ok(7)), Ok(Some(7))));
        assert!(matches!(failures.note(failure("old")), Ok(None)));
        assert!(failures.note(failure("new")).is_err());
    }

    #[test]
    fn a_lenient_run_remembers_every_failure() {
        let mut failures = Failures::lenient();
        assert!(matches!(failures.note(failure("one")), Ok(None)));
        assert_eq!(failures.into_texts(failure("end")), ["one", "end"]);
    }
}
