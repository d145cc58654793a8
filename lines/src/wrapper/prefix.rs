//! The text that loggers and container runtimes put before an event on its line.
//!
//! Invariants:
//! - A prefix is everything before the first `{` of a text, and is matched as a whole, never
//!   searched. So a line of another log does not match if it merely contains an event, or begins
//!   like a prefix.
//!   Only the prefix of a container's runtime may have another prefix after it. That prefix is
//!   matched as a whole, too.
//! - A line of klog never matches: it does not begin with a priority, the name of a month, a time of
//!   the forms here, or `@cee:`. So nothing that a client makes the API server print becomes an event.
//! - The work is linear, and bounded by [`PREFIX_BYTES_MAX`]. No state.

/// Longest prefix that is matched. The structured data of an RFC 5424 header has no bound of its
/// own; the other fields do.
const PREFIX_BYTES_MAX: usize = 8 << 10;

const HOST_BYTES_MAX: usize = 255;
/// Longest name of a log stream.
const NAME_BYTES_MAX: usize = 512;
const TAG_BYTES_MAX: usize = 64;
const PID_DIGITS_MAX: usize = 10;

/// The logger or runtime that wrote a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// RFC 3164, RFC 5424, the forms between them, and `journalctl -o short-full`.
    Syslog,
    /// A time alone: an export of CloudWatch Logs, or `kubectl logs --timestamps`.
    Time,
    /// `aws logs tail` of the stream of audit events.
    CloudWatchTail,
    /// A time and a name. Logstash's default format writes the name of a host, and `aws logs tail`
    /// prints the name of a log stream.
    TimeAndName,
    /// A whole line of a container's standard output (CRI).
    Container,
    /// Fluentd's `out_file`.
    Fluentd,
}

/// Returns the kind of the prefix of `text` and its length, if the text after it begins with `{`. If
/// `may_be_list`, that text may also begin with `[` and `{`. After a header of RFC 5424, a byte order
/// mark may come before the `{`; it belongs to the prefix. After the prefix of a container's runtime,
/// another prefix may come before the `{`; it does not belong to the first one.
pub(crate) fn find(text: &[u8], may_be_list: bool) -> Option<(Prefix, usize)> {
    let line = container_line(text);
    if line.as_ref().is_some_and(|line| !line.is_stdout || !line.is_full) {
        return None;
    }
    find_one(text, may_be_list).or_else(|| {
        let line = line?;
        find_one(line.content, may_be_list)?;
        Some((Prefix::Container, text.len() - line.content.len()))
    })
}

fn find_one(text: &[u8], may_be_list: bool) -> Option<(Prefix, usize)> {
    let window = &text[..text.len().min(PREFIX_BYTES_MAX + 1)];
    let brace = memchr::memchr(b'{', window)?;
    let before_list = || crate::json::trim_end(&text[..brace]).strip_suffix(b"[").map(<[u8]>::len);
    let end = may_be_list.then(before_list).flatten().unwrap_or(brace);
    let (head, bom) = match text[..end].strip_suffix(crate::limits::BOM) {
        Some(head) => (head, true),
        None => (&text[..end], false),
    };
    if head.is_empty() {
        return None;
    }
    let kind = kind(head, bom)?;
    Some((kind, end))
}

/// A line of a container's log, as the runtimes of CRI write it.
pub(crate) struct ContainerLine<'l> {
    pub(crate) is_stdout: bool,
    /// The line has the end of what the container wrote as one line.
    pub(crate) is_full: bool,
    pub(crate) content: &'l [u8],
}

/// Reads `TIME (stdout|stderr) [FP](:…)? content`.
pub(crate) fn container_line(line: &[u8]) -> Option<ContainerLine<'_>> {
    let mut at = Matcher { text: line };
    at.time()?;
    at.literal(b" std")?;
    let is_stdout = match at.literal(b"out ") {
        Some(()) => true,
        None => at.literal(b"err ").map(|()| false)?,
    };
    let is_full = match at.literal(b"F") {
        Some(()) => true,
        None => at.literal(b"P").map(|()| false)?,
    };
    if at.literal(b":").is_some() {
        // A tag, which may be empty.
        let _ = at.run(PREFIX_BYTES_MAX, |byte| byte.is_ascii_graphic());
    }
    at.literal(b" ")?;
    Some(ContainerLine { is_stdout, is_full, content: at.text })
}

/// Whether `line` begins like a line of klog: `I0302 10:00:00.000001       1 server.go:100] `.
pub(crate) fn is_klog(line: &[u8]) -> bool {
    let mut at = Matcher { text: line };
    let mut head = || {
        at.one(|byte| matches!(byte, b'I' | b'W' | b'E' | b'F'))?;
        at.form(b"dddd dd:dd:dd.dddddd ")?;
        at.run(PID_DIGITS_MAX + 8, |byte| byte == b' ' || byte.is_ascii_digit())?;
        at.run(HOST_BYTES_MAX, |byte| byte.is_ascii_graphic() && byte != b']')?;
        at.literal(b"]")
    };
    head().is_some()
}

fn kind(head: &[u8], bom: bool) -> Option<Prefix> {
    let matches = |grammar: fn(&mut Matcher<'_>) -> Option<()>| {
        let mut at = Matcher { text: head };
        grammar(&mut at).is_some() && at.text.is_empty()
    };
    let kind = if matches(rfc5424) {
        Prefix::Syslog
    } else if bom {
        return None;
    } else if matches(rfc3164) || matches(iso_syslog) || matches(journal_full) || matches(cookie) {
        Prefix::Syslog
    } else if matches(|at| at.time().and_then(|()| at.literal(b" "))) {
        Prefix::Time
    } else if matches(cloud_watch_tail) || matches(cloud_watch_short) {
        Prefix::CloudWatchTail
    } else if matches(|at| at.fluentd_tag().map(|_| ())) {
        Prefix::Fluentd
    } else if matches(|at| at.name_after_time().map(|_| ())) {
        Prefix::TimeAndName
    } else {
        matches(|at| at.time().and_then(|()| at.literal(b" stdout F "))).then_some(Prefix::Container)?
    };
    Some(kind)
}

/// Returns the tag of a line of Fluentd's `out_file`.
pub(crate) fn fluentd_tag(line: &[u8]) -> Option<&[u8]> {
    Matcher { text: line }.fluentd_tag()
}

/// Returns the name after the time, see [`Prefix::TimeAndName`].
pub(crate) fn name_after_time(line: &[u8]) -> Option<&[u8]> {
    Matcher { text: line }.name_after_time()
}

/// `@cee:`, by which rsyslog and other loggers mark that JSON follows.
fn cookie(at: &mut Matcher<'_>) -> Option<()> {
    at.literal(b"@cee:")?;
    let _ = at.literal(b" ");
    Some(())
}

/// `<133>Oct 21 10:37:55 host tag[1]: `
fn rfc3164(at: &mut Matcher<'_>) -> Option<()> {
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    at.priority(true)?;
    MONTHS.iter().find_map(|month| at.literal(month))?;
    at.literal(b" ")?;
    at.one(|byte| matches!(byte, b' ' | b'0'..=b'3'))?;
    at.form(b"d ")?;
    at.clock()?;
    at.literal(b" ")?;
    at.host_and_tag()
}

/// `<133>2026-03-02T10:00:00Z host tag: `
fn iso_syslog(at: &mut Matcher<'_>) -> Option<()> {
    at.priority(true)?;
    at.time()?;
    at.literal(b" ")?;
    at.host_and_tag()
}

/// `<110>1 2026-03-02T10:00:00.000Z host app - - - `
fn rfc5424(at: &mut Matcher<'_>) -> Option<()> {
    at.priority(false)?;
    at.literal(b"1 ")?;
    if at.literal(b"-").is_none() {
        at.time()?;
    }
    for bytes_max in [HOST_BYTES_MAX, 48, 128, 32] {
        at.literal(b" ")?;
        at.run(bytes_max, |byte| byte.is_ascii_graphic())?;
    }
    at.literal(b" ")?;
    if at.literal(b"-").is_none() {
        at.structured_data()?;
        while at.text.starts_with(b"[") {
            at.structured_data()?;
        }
    }
    at.literal(b" ")?;
    at.maybe_cookie()
}

/// `Mon 2026-03-02 10:00:00 UTC host tag[1]: `
fn journal_full(at: &mut Matcher<'_>) -> Option<()> {
    at.one(|byte| byte.is_ascii_uppercase())?;
    at.one(|byte| byte.is_ascii_lowercase())?;
    at.one(|byte| byte.is_ascii_lowercase())?;
    at.form(b" dddd-dd-dd ")?;
    at.clock()?;
    at.literal(b" ")?;
    at.run(5, |byte| byte.is_ascii_uppercase())?;
    at.literal(b" ")?;
    at.host_and_tag()
}

/// `2026-03-02T10:00:00+00:00 kube-apiserver-audit-0123456789abcdef `
fn cloud_watch_tail(at: &mut Matcher<'_>) -> Option<()> {
    at.time()?;
    at.literal(b" kube-apiserver-audit-")?;
    at.run(64, |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))?;
    at.literal(b" ")
}

/// `2026-03-02T10:00:00 `: with `--format short` the command names neither the zone nor the stream.
fn cloud_watch_short(at: &mut Matcher<'_>) -> Option<()> {
    at.form(b"dddd-dd-ddTdd:dd:dd ")
}

/// The text that is still to be matched. Each method removes what it matches from the beginning.
struct Matcher<'t> {
    text: &'t [u8],
}

impl<'t> Matcher<'t> {
    /// `2026-03-02T10:00:00+00:00`, a tab, the tag, a tab.
    fn fluentd_tag(&mut self) -> Option<&'t [u8]> {
        self.time()?;
        self.literal(b"\t")?;
        let from = self.text;
        self.run(HOST_BYTES_MAX, |byte| byte.is_ascii_graphic())?;
        let tag = &from[..from.len() - self.text.len()];
        self.literal(b"\t")?;
        Some(tag)
    }

    /// `2026-03-02T10:00:00.000Z`, a space, a name, a space.
    fn name_after_time(&mut self) -> Option<&'t [u8]> {
        self.time()?;
        self.literal(b" ")?;
        let from = self.text;
        self.run(NAME_BYTES_MAX, |byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'"' | b'='))?;
        let name = &from[..from.len() - self.text.len()];
        self.literal(b" ")?;
        Some(name)
    }

    fn maybe_cookie(&mut self) -> Option<()> {
        if self.text.starts_with(b"@") { cookie(self) } else { Some(()) }
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.text = self.text.strip_prefix(literal)?;
        Some(())
    }

    fn one(&mut self, is: impl Fn(u8) -> bool) -> Option<()> {
        let (first, rest) = self.text.split_first()?;
        is(*first).then(|| self.text = rest)
    }

    /// Takes as many bytes as `form` has: a `d` stands for a digit, another byte for itself.
    fn form(&mut self, form: &[u8]) -> Option<()> {
        form.iter().try_for_each(|wanted| match wanted {
            b'd' => self.one(|byte| byte.is_ascii_digit()),
            _ => self.one(|byte| byte == *wanted),
        })
    }

    /// Takes all bytes at the beginning that `is` allows. There must be at least one, and at most
    /// `bytes_max`.
    fn run(&mut self, bytes_max: usize, is: impl Fn(u8) -> bool) -> Option<()> {
        let length = self.text.iter().take_while(|byte| is(**byte)).count();
        self.text = (1..=bytes_max).contains(&length).then(|| &self.text[length..])?;
        Some(())
    }

    /// `<` one to three digits `>`.
    fn priority(&mut self, is_optional: bool) -> Option<()> {
        if is_optional && !self.text.starts_with(b"<") {
            return Some(());
        }
        self.literal(b"<")?;
        self.run(3, |byte| byte.is_ascii_digit())?;
        self.literal(b">")
    }

    /// `YYYY-MM-DD[T ]hh:mm:ss`, perhaps a fraction, and a zone.
    fn time(&mut self) -> Option<()> {
        self.form(b"dddd-dd-dd")?;
        self.one(|byte| matches!(byte, b'T' | b' '))?;
        self.form(b"dd:dd:dd")?;
        if self.one(|byte| matches!(byte, b'.' | b',')).is_some() {
            self.run(9, |byte| byte.is_ascii_digit())?;
        }
        if self.literal(b"Z").is_some() {
            return Some(());
        }
        self.one(|byte| matches!(byte, b'+' | b'-'))?;
        self.form(b"dd")?;
        // The colon of the zone may be left out.
        let _ = self.literal(b":");
        self.form(b"dd")
    }

    /// Eight digits and colons, perhaps a fraction.
    fn clock(&mut self) -> Option<()> {
        for _ in 0..8 {
            self.one(|byte| byte.is_ascii_digit() || byte == b':')?;
        }
        if self.literal(b".").is_some() {
            self.run(9, |byte| byte.is_ascii_digit())?;
        }
        Some(())
    }

    fn host_and_tag(&mut self) -> Option<()> {
        self.run(HOST_BYTES_MAX, |byte| byte.is_ascii_graphic())?;
        self.literal(b" ")?;
        self.run(TAG_BYTES_MAX, |byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-')
        })?;
        if self.literal(b"[").is_some() {
            self.run(PID_DIGITS_MAX, |byte| byte.is_ascii_digit())?;
            self.literal(b"]")?;
        }
        self.literal(b": ")?;
        self.maybe_cookie()
    }

    /// `[id name="value" …]`, of printable characters. In a value, a backslash escapes the next
    /// character, and `]` must be escaped.
    fn structured_data(&mut self) -> Option<()> {
        self.literal(b"[")?;
        let mut in_value = false;
        loop {
            let (byte, rest) = self.text.split_first()?;
            self.text = rest;
            match byte {
                b'"' => in_value = !in_value,
                b'\\' if in_value => self.one(is_printable)?,
                b']' if in_value => return None,
                b']' => return Some(()),
                byte => is_printable(*byte).then_some(())?,
            }
        }
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(prefix: &str) -> Option<Prefix> {
        let text = format!("{prefix}{{\"auditID\":\"a\"}}");
        let found = find(text.as_bytes(), false);
        if let Some((_, length)) = found {
            assert_eq!(length, prefix.len(), "{prefix}");
        }
        found.map(|(kind, _)| kind)
    }

    #[test]
    fn prefixes_of_loggers_and_runtimes() {
        for prefix in [
            "<133>Oct 21 10:37:55 node1.example.org k8s-audit: ",
            "Mar  2 10:00:00 node1 kube-apiserver[811]: ",
            "Mar  2 10:00:00.123456 node1 kube-apiserver[811]: ",
            "<13>2026-03-02T10:00:00.123456+01:00 node1 audit: ",
            "2026-03-02 10:00:00,123+0100 node1 a/b_c.d-e[1234567890]: ",
            "<110>1 2026-03-02T10:00:00.000Z node1.example.org kube-apiserver - - - ",
            "<110>1 - - - - - - ",
            "<110>1 2026-03-02T10:00:00Z h app 77 id [a@1 x=\"y\" z=\"\\\"\\]\\\\ [\"][b] ",
            "<110>1 2026-03-02T10:00:00Z h app 77 id - \u{feff}",
            "Mon 2026-03-02 10:00:00 UTC node1 kube-apiserver[1]: ",
            "Mon 2026-03-02 10:00:00.123456 CEST node1 kube-apiserver[1]: ",
            "@cee:",
            "@cee: ",
            "<133>Oct 21 10:37:55 node1 k8s-audit: @cee: ",
            "<133>Oct 21 10:37:55 node1 k8s-audit: @cee:",
            "<110>1 2026-03-02T10:00:00Z h app 77 id - @cee: ",
        ] {
            assert_eq!(found(prefix), Some(Prefix::Syslog), "{prefix}");
        }
        for prefix in ["2026-03-02T10:00:00+00:00\tk8s.audit\t", "2026-03-02 10:00:00 +0000\tx\t"] {
            let is_time = !prefix.contains(" +");
            assert_eq!(found(prefix), is_time.then_some(Prefix::Fluentd), "{prefix}");
        }
        assert_eq!(fluentd_tag(b"2026-03-02T10:00:00Z\tk8s.audit\tx"), Some(b"k8s.audit".as_slice()));
        for prefix in
            ["2026-01-01T00:00:00.000Z ", "2026-01-01T00:00:00.123456789Z ", "2026-01-01 00:00:00+00:00 "]
        {
            assert_eq!(found(prefix), Some(Prefix::Time), "{prefix}");
        }
        for prefix in
            ["2026-01-01T00:00:00.000000+00:00 kube-apiserver-audit-0123abcd ", "2026-01-01T00:00:00 "]
        {
            assert_eq!(found(prefix), Some(Prefix::CloudWatchTail), "{prefix}");
        }
        for prefix in ["2026-01-01T00:00:00.000Z node1 ", "2026-01-01T00:00:00.000Z kube-apiserver-0123 "] {
            assert_eq!(found(prefix), Some(Prefix::TimeAndName), "{prefix}");
        }
        assert_eq!(name_after_time(b"2026-01-01T00:00:00.000Z node1 {"), Some(b"node1".as_slice()));
        for prefix in ["2026-01-01T00:00:00.1Z stdout F ", "2026-01-01T00:00:00+00:00 stdout F "] {
            assert_eq!(found(prefix), Some(Prefix::Container), "{prefix}");
        }
    }

    #[test]
    fn near_misses_are_not_prefixes() {
        for prefix in [
            "",
            " ",
            "x",
            "I0302 10:00:00.000001       1 trace.go:236] ",
            "E0302 10:00:00.000001       1 a.go:1] Mar  2 10:00:00 node1 kube-apiserver: ",
            "<1333>Oct 21 10:37:55 node1 a: ",
            "<133> Oct 21 10:37:55 node1 a: ",
            "Okt 21 10:37:55 node1 a: ",
            "Oct 41 10:37:55 node1 a: ",
            "Oct 21 10:37:55 node1 a:",
            "Oct 21 10:37:55 node1 a:  ",
            "Oct 21 10:37:55 node1 a: b: ",
            "Oct 21 10:37:55 node1 a[]: ",
            "Oct 21 10:37:55 node1 a[x]: ",
            " Oct 21 10:37:55 node1 a: ",
            "Oct 21 10:37:55 a: ",
            "2026-03-02T10:00:00 node1 a: ",
            "2026-03-02T10:00:00Z node1 a: I0302 ",
            "<110>2 - - - - - - ",
            "<110>1 - - - - - ",
            "<110>1 - - - - - [a x=\"y] ",
            "<110>1 - - - - - [a x=\"]\"] ",
            "<110>1 - - - - - [a x=\"\u{1}\"] ",
            "<110>1 - - - - - [a]x[b] ",
            "2026-01-01T00:00:00.000Z stdout F:tag ",
            "Mon 2026-03-02 10:00:00 node1 kube-apiserver[1]: ",
            "2026-01-01T00:00:00.000Z",
            "2026-01-01T00:00:00.000Z  ",
            "2026-01-01T00:00:00.Z ",
            "2026-01-01T00:00:00.1234567890Z ",
            "2026-01-01T00:00:00.000Z stderr F ",
            "2026-01-01T00:00:00.000Z stdout P ",
            "2026-01-01T00:00:00.000Z stdout F x",
            "2026-01-01T00:00:00.000 ",
            "2026-01-01 00:00:00 ",
            "2026-01-01T00:00:00",
            "@cee",
            "@cee:  ",
            " @cee: ",
            "@cee: @cee: ",
            "<133>Oct 21 10:37:55 node1 a: @CEE: ",
            "2026-03-02T10:00:00Z\t\t",
            "2026-03-02T10:00:00Z\ta b\t",
            "2026-03-02T10:00:00Z\ta",
            "2026-03-02T10:00:00Z\ta\t\t",
            "2026-03-02T10:00:00Z a\t",
            "2026-01-01T00:00:00.000Z a b ",
            "2026-01-01T00:00:00.000Z a=b ",
            "2026-01-01T00:00:00.000Z \"a\" ",
            "2026-01-01T00:00:00 a ",
            "\u{feff}2026-01-01T00:00:00.000Z ",
            "2026-01-01T00:00:00.000Z \u{feff}",
        ] {
            assert_eq!(found(prefix), None, "{prefix}");
        }
        assert_eq!(find(b"2026-01-01T00:00:00.000Z x", false), None);
        let long = format!("<110>1 - - - - - [a x=\"{}\"] ", "y".repeat(PREFIX_BYTES_MAX));
        assert_eq!(found(&long), None);
    }

    #[test]
    fn klog_is_known_by_its_head() {
        assert!(is_klog(b"I0302 10:00:00.000001       1 trace.go:236] Trace[1]: \"Update\""));
        assert!(is_klog(b"E1231 23:59:59.999999 1234567 a/b.go:1] x"));
        for other in [
            "I0302",
            "X0302 10:00:00.000001       1 a.go:1] x",
            "I0302 10:00:00.000001       1 a.go:1 x",
            "{",
        ] {
            assert!(!is_klog(other.as_bytes()), "{other}");
        }
    }
}
