//! Errors as text, for logs and messages.
//!
//! Invariant: a cause is written once, even if the error around it already contains its text. No
//! state.

use std::error::Error;

/// Returns an error and its causes in one line, leaving out causes that the text already contains.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}
