//! Reads the paths of container logs, and the tags and names that are made from them.

use super::{CONTAINER, NAMES_MAX, Origin};

/// Texts that may come before the path of a log: nothing, a folder in which the node's folders are
/// mounted, or the scheme of a URL.
const BEFORE_PATHS: [&str; 7] = ["", "/host", "/hostfs", "/rootfs", "file://", "C:", "c:"];

/// The forms of the paths of container logs: the beginning, the character that separates the
/// components of the path, and whether the names are those of a directory
/// (`NAMESPACE_POD_UID/CONTAINER/`) or of a file (`POD_NAMESPACE_CONTAINER-ID.log`). Tags that are
/// made from paths have dots in place of slashes.
const PATHS: [(&str, char, bool); 4] = [
    ("/var/log/pods/", '/', true),
    ("/var/log/containers/", '/', false),
    ("var.log.pods.", '.', true),
    ("var.log.containers.", '.', false),
];

/// Where in a value the path of a log is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// Anywhere. This is for names of log streams and for the tags of shippers: clients do not
    /// choose a part of them.
    Anywhere,
    /// At the start, or after a text for which [`is_before_path`] is true.
    Start,
}

impl Origin {
    /// Reads a text that may name a container: the path of the container's log, a tag that was made
    /// from such a path, docker's name of the container, or Splunk's sourcetype of its log.
    pub(super) fn path(&mut self, text: &str, place: Where) {
        // Nodes with Windows have `C:\\var\\log\\containers\\…`.
        let of_windows = text.contains('\\').then(|| text.replace('\\', "/"));
        let text = of_windows.as_deref().unwrap_or(text);
        if let Some(name) = text.strip_prefix("kube:container:") {
            self.containers.push(name.to_owned());
        }
        if let Some((container, namespace)) = docker_name(text) {
            self.paths.push((container.to_owned(), namespace.to_owned()));
        }
        for (start, separator, is_directory) in PATHS {
            for (at, _) in text.match_indices(start).take(NAMES_MAX) {
                if place == Where::Start && !is_before_path(&text[..at], separator) {
                    continue;
                }
                match named(&text[at + start.len()..], separator, is_directory) {
                    Some((container, namespace)) => {
                        self.paths.push((container.to_owned(), namespace.to_owned()));
                    }
                    None => self.unread = Some(CONTAINER),
                }
            }
        }
    }
}

/// Whether a text may come before the path of a log: one of [`BEFORE_PATHS`] or, in a tag, one
/// label.
fn is_before_path(text: &str, separator: char) -> bool {
    match separator {
        '/' => BEFORE_PATHS.contains(&text),
        _ => {
            let label = text.strip_suffix(separator).unwrap_or(text);
            label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@'))
        }
    }
}

/// Returns the container and the namespace in the name that docker gives to a container of
/// Kubernetes, `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
pub(super) fn docker_name(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.trim_start_matches('/').strip_prefix("k8s_")?.split('_');
    let (container, _pod, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let (_uid, _attempt) = (parts.next()?, parts.next()?);
    Some((container, namespace))
}

/// Returns the container and the namespace that a path names.
fn named(path: &str, separator: char, is_directory: bool) -> Option<(&str, &str)> {
    let mut parts = path.splitn(3, '_');
    let (first, second, last) = (parts.next()?, parts.next()?, parts.next()?);
    if is_directory {
        let mut last = last.split(separator);
        let _uid = last.next()?;
        return Some((last.next()?, first));
    }
    let (container, _id) = last.split('.').next()?.rsplit_once('-')?;
    Some((container, second))
}
