//! The name of a cluster, which no event carries.
//!
//! Invariant: a name that is accepted here is accepted wherever a cluster is named. No state.

/// Longest name of a cluster.
const CLUSTER_CHARS_MAX: usize = 253;

pub fn cluster_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > CLUSTER_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "a cluster's name has 1 to {CLUSTER_CHARS_MAX} characters, none of them control characters"
        ));
    }
    Ok(text.to_owned())
}
