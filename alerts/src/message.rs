//! Renders the texts of an alert: its message, from the rule's template or a default made from the
//! request, and its next steps.
//!
//! Invariant: a text is made only from an alert's listed fields. So it never contains a part of a
//! body, except the command and the container of an exec, which an alert may contain. Attackers
//! choose names, agents and URIs, so control characters are replaced and lengths are bounded. In
//! next steps, values are inside quotes of SQL queries, so a quote in a value is doubled. No state.

use std::fmt::Write;

use strongroom_bodies::Exec;
use strongroom_schemas::marks::{Unread, parse_fault};
use strongroom_schemas::{AlertEvent, Outcome, is_active};

/// Longest value in a message, in characters.
pub const VALUE_CHARS_MAX: usize = 256;
/// Longest message, in characters.
pub const MESSAGE_CHARS_MAX: usize = 1024;

/// Longest text of next steps, in characters.
pub const NEXT_STEPS_CHARS_MAX: usize = 8192;

/// The text for a value that the event does not have.
const ABSENT: &str = "-";

/// The alert that a text is about.
pub(crate) struct Subject<'a> {
    pub(crate) event: &'a AlertEvent,
    /// Number of events or distinct values counted.
    pub(crate) count: u64,
    /// `field=value` pairs of the group.
    pub(crate) group: &'a str,
    /// The rule's timespan as text; empty for a rule over single events.
    pub(crate) timespan: &'a str,
}

macro_rules! placeholders {
    ($($variant:ident $name:literal)*) => {
        /// A value that a template may name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Placeholder { $($variant),* }

        const PLACEHOLDERS: &[(&str, Placeholder)] = &[$(($name, Placeholder::$variant)),*];
    };
}

placeholders! {
    Actor "actor"
    AuditId "auditID"
    Cluster "cluster"
    Code "responseStatus.code"
    Count "count"
    Decision "authz.decision"
    ExecCommand "exec.command"
    ExecContainer "exec.container"
    ApiGroup "objectRef.apiGroup"
    Group "group"
    Name "objectRef.name"
    Namespace "objectRef.namespace"
    Object "object"
    Request "request"
    RequestUri "requestURI"
    Resource "objectRef.resource"
    SourceIp "source_ip"
    Stage "stage"
    Subresource "objectRef.subresource"
    Timespan "timespan"
    UserAgent "userAgent"
    UserName "user.username"
    Verb "verb"
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

impl Piece {
    fn is_of_exec(&self) -> bool {
        matches!(self, Piece::Value(Placeholder::ExecCommand | Placeholder::ExecContainer))
    }
}

/// A template of a rule: text with `{field}` in it. `{{` and `}}` are literal braces.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// Parses a template. The error names the placeholder that is not a field of alerts, or the
    /// brace that is unmatched.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(open);
            pieces.push(Piece::Text(before.to_owned()));
            if brace.starts_with("{{") || brace.starts_with("}}") {
                pieces.push(Piece::Text(brace[..1].to_owned()));
                rest = &brace[2..];
                continue;
            }
            let Some((name, after)) = brace.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
                return Err(format!("has an unmatched brace: \"{brace}\""));
            };
            match PLACEHOLDERS.iter().find(|(known, _)| *known == name) {
                Some((_, placeholder)) => pieces.push(Piece::Value(*placeholder)),
                None => {
                    let known: Vec<&str> = PLACEHOLDERS.iter().map(|(known, _)| *known).collect();
                    return Err(format!("names {{{name}}}, but an alert carries only {}", known.join(", ")));
                }
            }
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Template(pieces))
    }

    /// Returns true if the template names a part of an exec request, which may be in its body.
    pub(crate) fn names_exec(&self) -> bool {
        self.0.iter().any(Piece::is_of_exec)
    }

    /// Renders the message of an alert.
    pub(crate) fn render(&self, subject: &Subject<'_>) -> String {
        // If the template names the authenticated user itself, `{actor}` is the impersonated user
        // alone.
        let both = !self.0.iter().any(|piece| matches!(piece, Piece::Value(Placeholder::UserName)));
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Value(placeholder) => placeholder.write(subject, both, &mut text),
            }
        }
        bounded(text, MESSAGE_CHARS_MAX)
    }

    /// Renders the next steps of an alert. Values keep their full length, so that a query searches
    /// for the whole value; but in `{object}` and `{request}`, which are for people, each part is
    /// cut at [`VALUE_CHARS_MAX`]. A value cannot end the quotes around it.
    pub(crate) fn render_next_steps(&self, subject: &Subject<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Value(placeholder) => {
                    let value = placeholder.text(subject);
                    for c in value.chars() {
                        match c {
                            '\'' => text.push_str("''"),
                            '`' => text.push(char::REPLACEMENT_CHARACTER),
                            c if is_active(c) => text.push(char::REPLACEMENT_CHARACTER),
                            c => text.push(c),
                        }
                    }
                }
            }
        }
        bounded(text, NEXT_STEPS_CHARS_MAX)
    }

    /// Renders an SQL query. Outside quotes, a value becomes an SQL literal. Inside quotes, it
    /// becomes a part of the quoted literal, and can never end it. A missing value is the empty
    /// text, and a missing number is 0; `{object}` and `{request}` are as in next steps.
    pub(crate) fn render_sql(&self, subject: &Subject<'_>) -> String {
        let mut text = String::new();
        let mut quoted = false;
        for piece in &self.0 {
            let placeholder = match piece {
                Piece::Text(literal) => {
                    quoted ^= literal.matches('\'').count() % 2 == 1;
                    text.push_str(literal);
                    continue;
                }
                Piece::Value(placeholder) => *placeholder,
            };
            let value = match placeholder {
                Placeholder::Code => subject.event.response_code.unwrap_or_default().to_string(),
                _ => placeholder.text(subject),
            };
            let number = matches!(placeholder, Placeholder::Code | Placeholder::Count);
            let edge = if quoted || number { "" } else { "'" };
            text.push_str(edge);
            for c in value.chars() {
                match c {
                    '\'' => text.push_str("''"),
                    c if is_active(c) => text.push(char::REPLACEMENT_CHARACTER),
                    c => text.push(c),
                }
            }
            text.push_str(edge);
        }
        text
    }
}

impl Placeholder {
    /// Returns a value in full; an empty text if the event does not have the value. `{object}`,
    /// `{request}` and `{responseStatus.code}` are the exceptions: they are as in messages, with
    /// parts that are cut at [`VALUE_CHARS_MAX`], and with `-` for a missing part.
    fn text(self, subject: &Subject<'_>) -> String {
        let event = subject.event;
        let optional = |field: &Option<String>| field.clone().unwrap_or_default();
        match self {
            Placeholder::Actor => event.actor.clone(),
            Placeholder::AuditId => event.audit_id.clone(),
            Placeholder::Cluster => event.cluster.clone(),
            Placeholder::Decision => optional(&event.authz_decision),
            Placeholder::ExecCommand => exec(event, Exec::Command).unwrap_or_default(),
            Placeholder::ExecContainer => exec(event, Exec::Container).unwrap_or_default(),
            Placeholder::ApiGroup => optional(&event.api_group),
            Placeholder::Group => subject.group.to_owned(),
            Placeholder::Name => optional(&event.name),
            Placeholder::Namespace => optional(&event.namespace),
            Placeholder::RequestUri => optional(&event.request_uri),
            Placeholder::Resource => optional(&event.resource),
            Placeholder::SourceIp => optional(&event.source_ip),
            Placeholder::Stage => optional(&event.stage),
            Placeholder::Subresource => optional(&event.subresource),
            Placeholder::UserAgent => optional(&event.user_agent),
            Placeholder::UserName => event.user_name.clone(),
            Placeholder::Verb => optional(&event.verb),
            Placeholder::Code
            | Placeholder::Count
            | Placeholder::Object
            | Placeholder::Request
            | Placeholder::Timespan => {
                let mut text = String::new();
                self.write(subject, false, &mut text);
                text
            }
        }
    }

    /// Adds a value to `out`. With `both`, the actor is written as the authenticated user and the
    /// impersonated user.
    fn write(self, subject: &Subject<'_>, both: bool, out: &mut String) {
        let event = subject.event;
        match self {
            Placeholder::Actor => actor(event, both, out),
            Placeholder::AuditId => value(&event.audit_id, out),
            Placeholder::Cluster => value(&event.cluster, out),
            Placeholder::Code => match event.response_code {
                Some(code) => write!(out, "{code}").expect("writing to a String"),
                None => out.push_str(ABSENT),
            },
            Placeholder::Count => write!(out, "{}", subject.count).expect("writing to a String"),
            Placeholder::Decision => optional(&event.authz_decision, out),
            Placeholder::ExecCommand => optional(&exec(event, Exec::Command), out),
            Placeholder::ExecContainer => optional(&exec(event, Exec::Container), out),
            Placeholder::ApiGroup => optional(&event.api_group, out),
            Placeholder::Group => value(subject.group, out),
            Placeholder::Name => optional(&event.name, out),
            Placeholder::Namespace => optional(&event.namespace, out),
            Placeholder::Object => object(event, out),
            Placeholder::Request => request(event, both, out),
            Placeholder::RequestUri => optional(&event.request_uri, out),
            Placeholder::Resource => optional(&event.resource, out),
            Placeholder::SourceIp => optional(&event.source_ip, out),
            Placeholder::Stage => optional(&event.stage, out),
            Placeholder::Subresource => optional(&event.subresource, out),
            Placeholder::Timespan => out.push_str(subject.timespan),
            Placeholder::UserAgent => optional(&event.user_agent, out),
            Placeholder::UserName => value(&event.user_name, out),
            Placeholder::Verb => optional(&event.verb, out),
        }
    }
}

/// Returns a part of an exec request: from its URI or, if the URI does not have the part, from the
/// fields that the body filled.
fn exec(event: &AlertEvent, part: Exec) -> Option<String> {
    let of_body = match part {
        Exec::Command => &event.exec_command,
        Exec::Container => &event.exec_container,
    };
    event.request_uri.as_deref().and_then(|uri| part.of_uri(uri)).or_else(|| of_body.clone())
}

fn optional(field: &Option<String>, out: &mut String) {
    value(field.as_deref().unwrap_or_default(), out);
}

/// Adds a value to `out`, shortened and without control characters, so that the message stays one
/// line.
fn value(text: &str, out: &mut String) {
    if text.is_empty() {
        return out.push_str(ABSENT);
    }
    let shown = first_chars(text, VALUE_CHARS_MAX);
    if shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        out.push_str(shown);
    } else {
        out.extend(shown.chars().map(|c| if is_active(c) { char::REPLACEMENT_CHARACTER } else { c }));
    }
    if shown.len() < text.len() {
        out.push('…');
    }
}

/// Returns at most `count` characters from the start of a text.
pub(crate) fn first_chars(text: &str, count: usize) -> &str {
    if text.len() <= count {
        return text;
    }
    text.char_indices().nth(count).map_or(text, |(end, _)| &text[..end])
}

/// Adds the actor of a request to `out`. This is the user whose permissions the request used:
/// `admin` if `alice` impersonates `admin`. With `both`, it is `alice as admin`.
fn actor(event: &AlertEvent, both: bool, out: &mut String) {
    match event.impersonated_user().filter(|_| both) {
        None => value(&event.actor, out),
        Some(impersonated) => {
            value(event.authenticated_user(), out);
            out.push_str(" as ");
            value(impersonated, out);
        }
    }
}

/// Adds the object of a request to `out`: `secrets/db-creds`, `pods/web-0/exec`, or the path of a
/// request that is not about a resource.
fn object(event: &AlertEvent, out: &mut String) {
    let Some(resource) = &event.resource else {
        let path = event.request_uri.as_deref().unwrap_or_default();
        return value(path.split('?').next().unwrap_or_default(), out);
    };
    value(resource, out);
    for part in [&event.name, &event.subresource].into_iter().flatten() {
        out.push('/');
        value(part, out);
    }
}

/// Adds a description of a request to `out`, such as `alice get secrets/db-creds in payments from
/// 10.0.0.7`. If the request failed, its response code is added.
fn request(event: &AlertEvent, both: bool, out: &mut String) {
    actor(event, both, out);
    out.push(' ');
    optional(&event.verb, out);
    out.push(' ');
    object(event, out);
    if let Some(namespace) = &event.namespace {
        out.push_str(" in ");
        value(namespace, out);
    }
    if let Some(address) = &event.source_ip {
        out.push_str(" from ");
        value(address, out);
    }
    match event.response_code {
        Some(code) if code >= 400 => write!(out, ": {code}").expect("writing to a String"),
        _ => {}
    }
}

/// Maximum number of repeated members that a message lists.
const REPEATED_MAX: usize = 3;

/// Returns the message of an alert. If the rule names the outcome and the event does not show it,
/// the message says that the success is unconfirmed. If the event repeats members, the message
/// lists them, because the rules used only the last value of each.
pub(crate) fn message(template: Option<&Template>, subject: &Subject<'_>, names_outcome: bool) -> String {
    let text = match template {
        Some(template) => template.render(subject),
        None => default_message(subject),
    };
    let unconfirmed = names_outcome && subject.event.outcome == Some(Outcome::Unknown);
    let faults = subject.event.faults.iter().filter_map(|fault| parse_fault(fault));
    let repeated: Vec<&str> =
        faults.filter(|(_, fault)| *fault == Unread::DuplicateMember).map(|(member, _)| member).collect();
    if !unconfirmed && repeated.is_empty() {
        return text;
    }
    let before = if unconfirmed { "unconfirmed: " } else { "" };
    let mut after = String::new();
    for (at, member) in repeated.iter().take(REPEATED_MAX).enumerate() {
        after.push_str(if at == 0 {
            "; the event repeats members, and the rules read the last value of each: "
        } else {
            ", "
        });
        value(member, &mut after);
    }
    if repeated.len() > REPEATED_MAX {
        write!(after, " and {} more", repeated.len() - REPEATED_MAX).expect("writing to a String");
    }
    let room = MESSAGE_CHARS_MAX.saturating_sub(before.len() + after.chars().count());
    format!("{before}{}{after}", bounded(text, room))
}

/// Returns the message of an alert whose rule has no template.
fn default_message(subject: &Subject<'_>) -> String {
    let mut text = String::new();
    if !subject.timespan.is_empty() {
        let group = if subject.group.is_empty() { "all events" } else { subject.group };
        write!(text, "{} within {} for ", subject.count, subject.timespan).expect("writing to a String");
        value(group, &mut text);
        text.push_str("; last: ");
    }
    request(subject.event, true, &mut text);
    bounded(text, MESSAGE_CHARS_MAX)
}

/// Appends a remark to a message. The message is shortened if it would be too long with the remark.
pub(crate) fn append(message: &mut String, remark: &str) {
    let room = MESSAGE_CHARS_MAX.saturating_sub(remark.chars().count());
    *message = bounded(std::mem::take(message), room);
    message.push_str(remark);
}

fn bounded(text: String, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text,
        Some((end, _)) => {
            let mut text = text;
            text.truncate(end);
            text.push('…');
            text
        }
    }
}

/// Returns a duration in the format of rules: `90s`, `5m`, `1h`, `7d`.
pub(crate) fn timespan_text(microseconds: i64) -> String {
    let seconds = microseconds / 1_000_000;
    let (unit, length) = [("d", 86_400), ("h", 3600), ("m", 60)]
        .into_iter()
        .find(|(_, length)| seconds >= *length && seconds % length == 0)
        .unwrap_or(("s", 1));
    format!("{}{unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AlertEvent {
        AlertEvent {
            actor: "alice".into(),
            verb: Some("get".into()),
            resource: Some("secrets".into()),
            name: Some("db-creds".into()),
            namespace: Some("payments".into()),
            source_ip: Some("10.0.0.7".into()),
            request_uri: Some("/api?command=sh&command=-c".into()),
            response_code: Some(200),
            ..AlertEvent::default()
        }
    }

    fn subject(event: &AlertEvent) -> Subject<'_> {
        Subject { event, count: 24, group: "actor=alice", timespan: "5m" }
    }

    #[test]
    fn default_sentences() {
        let mut event = event();
        let single =
            |event: &AlertEvent| default_message(&Subject { event, count: 1, group: "", timespan: "" });
        assert_eq!(single(&event), "alice get secrets/db-creds in payments from 10.0.0.7");
        event.response_code = Some(403);
        event.subresource = Some("status".into());
        assert_eq!(single(&event), "alice get secrets/db-creds/status in payments from 10.0.0.7: 403");
        assert_eq!(
            default_message(&subject(&event)),
            "24 within 5m for actor=alice; last: alice get secrets/db-creds/status in payments from 10.0.0.7: 403"
        );
    }

    #[test]
    fn both_users_of_an_impersonation_are_named() {
        let mut event = event();
        event.user_name = "root".into();
        let rendered = |text: &str| Template::parse(text).unwrap().render(&subject(&event));
        assert_eq!(rendered("{actor} did"), "root as alice did");
        assert_eq!(rendered("{user.username} acted as {actor}"), "root acted as alice");
        assert_eq!(
            rendered("by {user.username}: {request}"),
            "by root: alice get secrets/db-creds in payments from 10.0.0.7"
        );
        assert_eq!(rendered("{request}"), "root as alice get secrets/db-creds in payments from 10.0.0.7");
        assert_eq!(Template::parse("{actor}").unwrap().render_sql(&subject(&event)), "'alice'");
        assert_eq!(Template::parse("{actor}").unwrap().render_next_steps(&subject(&event)), "alice");
    }

    #[test]
    fn a_message_says_what_is_not_certain() {
        let mut event = event();
        event.outcome = Some(Outcome::Unknown);
        let template = Template::parse("{actor} did").unwrap();
        assert_eq!(message(Some(&template), &subject(&event), true), "unconfirmed: alice did");
        assert_eq!(message(Some(&template), &subject(&event), false), "alice did");
        event.outcome = Some(Outcome::Success);
        event.faults = ["/requestObject: too_deep", "/verb: duplicate_member"].map(str::to_owned).to_vec();
        assert_eq!(
            message(Some(&template), &subject(&event), true),
            "alice did; the event repeats members, and the rules read the last value of each: /verb"
        );
        event.outcome = Some(Outcome::Unknown);
        event.faults = (0..5).map(|at| format!("/user/{at}: duplicate_member")).collect();
        let long = Template::parse(&"x".repeat(2 * MESSAGE_CHARS_MAX)).unwrap();
        let text = message(Some(&long), &subject(&event), true);
        assert!(text.starts_with("unconfirmed: xxx"), "{text}");
        assert!(
            text.ends_with(
                "x…; the event repeats members, and the rules read the last value of each: /user/0, /user/1, /user/2 and 2 more"
            ),
            "{text}"
        );
        assert!(text.chars().count() <= MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn templates_fill_in_fields() {
        let event = event();
        let template = Template::parse(
            "{actor} ran {exec.command} {{x}} in {objectRef.namespace}, {userAgent}, {count}",
        );
        assert_eq!(template.unwrap().render(&subject(&event)), "alice ran sh -c {x} in payments, -, 24");
    }

    #[test]
    fn next_steps_ask_for_the_value_and_nothing_else() {
        let mut event = event();
        event.name = Some("x' OR 1=1; --".into());
        event.user_agent = Some(format!("`rm`\n{}", "a".repeat(300)));
        event.namespace = None;
        let template = Template::parse(
            "WHERE name = '{objectRef.name}' AND namespace = '{objectRef.namespace}' {userAgent}",
        );
        assert_eq!(
            template.unwrap().render_next_steps(&subject(&event)),
            format!(
                "WHERE name = 'x'' OR 1=1; --' AND namespace = '' \u{FFFD}rm\u{FFFD}\u{FFFD}{}",
                "a".repeat(300)
            )
        );
    }

    #[test]
    fn values_in_queries_are_literals() {
        let mut event = event();
        event.name = Some("x' OR 1=1; --".into());
        event.namespace = None;
        event.response_code = Some(403);
        let rendered = |text: &str| Template::parse(text).unwrap().render_sql(&subject(&event));
        assert_eq!(
            rendered(
                "WHERE name = {objectRef.name} AND code = {responseStatus.code} AND namespace = {objectRef.namespace}"
            ),
            "WHERE name = 'x'' OR 1=1; --' AND code = 403 AND namespace = ''"
        );
        assert_eq!(
            rendered("WHERE uri LIKE '%{objectRef.name}%' AND verb = {verb} AND n > {count}"),
            "WHERE uri LIKE '%x'' OR 1=1; --%' AND verb = 'get' AND n > 24"
        );
    }

    #[test]
    fn templates_cannot_name_bodies() {
        let error = Template::parse("{requestObject.data}").unwrap_err();
        assert!(error.contains("an alert carries only"), "{error}");
        assert!(Template::parse("a { b").is_err());
        assert!(Template::parse("a } b").is_err());
    }

    #[test]
    fn values_from_outside_are_made_harmless() {
        let mut event = event();
        event.actor = format!("a\nb\u{1b}[2J\u{202e}\u{9b}{}", "x".repeat(5000));
        let text = default_message(&Subject { event: &event, count: 1, group: "", timespan: "" });
        assert!(!text.chars().any(is_active));
        assert!(text.chars().count() < MESSAGE_CHARS_MAX);
        assert!(text.ends_with("… get secrets/db-creds in payments from 10.0.0.7"));
    }

    #[test]
    fn timespans_in_the_largest_whole_unit() {
        for (seconds, text) in [(30, "30s"), (90, "90s"), (300, "5m"), (3600, "1h"), (604_800, "7d")] {
            assert_eq!(timespan_text(seconds * 1_000_000), text);
        }
    }
}
