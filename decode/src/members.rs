//! Reads an event from its parsed members, in any order and format.
//!
//! Invariant: a row is returned only if [`plain`] reads the same from the line. The row has no
//! `raw` only if rendering the row gives the line. No state.

use simd_json::{Node, StaticNode};
use strongroom_lines::{Reason, Refusal, Writers, is_spread, may_hold_nested, plain, wrapper};
use strongroom_schemas::events::SHAPE_DEFAULT;
use strongroom_schemas::{Level, Stage};

use crate::columns::NULL;
use crate::document::{Document, Stop, timestamp};
use crate::rows::{ListKeys, NO_ANNOTATIONS, NO_OBJECT, NO_STATUS, NO_USER, Row, Rows, UserKeys};
use crate::tape::{self, Member};

/// Longest `shape` that is stored; a line with a longer head is kept in `raw`.
const SHAPE_BYTES_MAX: usize = 256;

/// Members of an event in kube-apiserver's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Head,
    Level,
    AuditId,
    Stage,
    RequestUri,
    Verb,
    User,
    ImpersonatedUser,
    SourceIps,
    UserAgent,
    ObjectRef,
    ResponseStatus,
    RequestObject,
    ResponseObject,
    RequestReceivedTimestamp,
    StageTimestamp,
    Annotations,
}

const PARTS: usize = Part::Annotations as usize + 1;

fn part(key: &[u8]) -> Option<Part> {
    Some(match key {
        b"level" => Part::Level,
        b"auditID" => Part::AuditId,
        b"stage" => Part::Stage,
        b"requestURI" => Part::RequestUri,
        b"verb" => Part::Verb,
        b"user" => Part::User,
        b"impersonatedUser" => Part::ImpersonatedUser,
        b"sourceIPs" => Part::SourceIps,
        b"userAgent" => Part::UserAgent,
        b"objectRef" => Part::ObjectRef,
        b"responseStatus" => Part::ResponseStatus,
        b"requestObject" => Part::RequestObject,
        b"responseObject" => Part::ResponseObject,
        b"requestReceivedTimestamp" => Part::RequestReceivedTimestamp,
        b"stageTimestamp" => Part::StageTimestamp,
        b"annotations" => Part::Annotations,
        _ => return None,
    })
}

/// Whether a member of this name has a column, or is an object with columns.
pub(crate) fn has_column(name: &[u8]) -> bool {
    part(name).is_some()
}

/// Whether a member of this name may show the plain decoder that something other than
/// kube-apiserver wrote the event: the level under a collector's name, or the method in another
/// product's log.
fn is_read_of_others(name: &[u8]) -> bool {
    name == b"method" || plain::LEVELS_OF_COLLECTORS.iter().any(|known| known.as_bytes() == name)
}

/// Whether a member beside those of the event may say that something other than an API server wrote
/// it.
fn may_name_other_writer(name: &[u8], value: &[u8], writers: &Writers) -> bool {
    match (std::str::from_utf8(name), std::str::from_utf8(value)) {
        (Ok(name), Ok(value)) => wrapper::other_beside(name, value, writers).is_some(),
        _ => true,
    }
}

/// Whether a user may come from another product's record, in which a user has a member `name`.
fn may_be_other_user(user: &[u8]) -> bool {
    [&b"\"name\""[..], b"\\u"].iter().any(|text| memchr::memmem::find(user, text).is_some())
}

/// Reads the event in `document`. Returns [`Stop`] if [`plain`] must decide what the line is.
pub(crate) fn read<'d>(
    rows: &mut Rows,
    document: &Document<'d, 'd>,
    members: &mut Vec<Member>,
    writers: &Writers,
) -> Result<Row<'d>, Stop> {
    if !matches!(document.nodes.first(), Some(Node::Object { .. })) {
        return Err(Refusal::new(Reason::NotAnAuditEvent, "not a JSON object").into());
    }
    tape::members(document.nodes, document.base, document.line, 0, document.line.len(), members)?;
    let members = &*members;
    let line = document.line;
    let (mut kind, mut api_version) = (None, None);
    let mut is_of_others = false;
    let mut parts: [Option<&Member>; PARTS] = [None; PARTS];
    let mut canonical = true;
    let mut before = Part::Head;
    // `head_end` is where the text before the first member with a column ends, and `at` is where
    // the last member with a column ends.
    let (mut head_end, mut at) = (0, 0);
    for member in members {
        let Some(part) = part(member.key(line)) else {
            match member.key(line) {
                b"kind" => kind = Some(member),
                b"apiVersion" => api_version = Some(member),
                b"metadata" | b"authenticationMetadata" => {}
                name => {
                    is_of_others |= is_read_of_others(name);
                    if std::str::from_utf8(name).is_ok_and(is_spread) {
                        return Err(Stop);
                    }
                    if may_name_other_writer(name, document.text(member), writers) {
                        return Err(Stop);
                    }
                }
            }
            canonical &= before == Part::Head;
            head_end = member.end;
            continue;
        };
        canonical &= part > before && member.start == member.key_at + member.key_len + 2;
        if before == Part::Head {
            head_end = member.key_at - 1;
        } else {
            canonical &= member.key_at == at + 2;
        }
        before = part;
        at = member.end;
        // A member that occurs twice is a fault.
        if parts[part as usize].replace(member).is_some() {
            return Err(Stop);
        }
    }
    canonical &= line.first() == Some(&b'{') && at + 1 == line.len();
    let part = |part: Part| parts[part as usize];

    let string = |name: &str, at: Part| match part(at) {
        Some(member) => document.string(name, member),
        None => Ok(None),
    };
    let audit_id = part(Part::AuditId).map(|member| document.string("auditID", member));
    let has_audit_id = matches!(audit_id, Some(Ok(Some(_))));
    let kind = kind.and_then(|member| match &document.nodes[member.node] {
        Node::String(kind) => Some(*kind),
        Node::Static(StaticNode::Null) => None,
        _ => Some(""),
    });
    let api_version = api_version.and_then(|member| match &document.nodes[member.node] {
        Node::String(version) => Some(*version),
        _ => None,
    });
    plain::require_event(kind, api_version, has_audit_id)?;

    let audit_id = audit_id.transpose()?.flatten();
    let stage = string("stage", Part::Stage)?;
    let level = string("level", Part::Level)?;
    if is_of_others && (level.is_none() || kind.is_none()) {
        return Err(Stop);
    }
    let verb = string("verb", Part::Verb)?;
    let request_uri = string("requestURI", Part::RequestUri)?;
    let user_agent = string("userAgent", Part::UserAgent)?;
    if let Some(stage) = stage {
        stage
            .parse::<Stage>()
            .map_err(|error| Refusal::field("stage", &format!("one of {}", error.expected)))?;
    }
    if let Some(level) = level {
        level
            .parse::<Level>()
            .map_err(|error| Refusal::field("level", &format!("one of {}", error.expected)))?;
    }
    let user = match part(Part::User) {
        Some(member) => rows.user(document, member)?,
        None => NO_USER,
    };
    if kind.is_none()
        && !user.canonical
        && part(Part::User).is_some_and(|member| may_be_other_user(document.text(member)))
    {
        return Err(Stop);
    }
    let impersonated = match part(Part::ImpersonatedUser) {
        Some(member) => rows.impersonated_user(document, member)?,
        None => UserKeys { canonical: true, ..NO_USER },
    };
    let ips = match part(Part::SourceIps) {
        Some(member) => rows.source_ips(document, member)?,
        None => ListKeys { list: NULL, canonical: true },
    };
    let (object, resource_version) = match part(Part::ObjectRef) {
        Some(member) => rows.object_ref(document, member)?,
        None => (NO_OBJECT, None),
    };
    let status = match part(Part::ResponseStatus) {
        Some(member) => rows.response_status(document, member)?,
        None => NO_STATUS,
    };
    let body =
        |at: Part| part(at).filter(|member| !document.is_null(member)).map(|member| document.text(member));
    let (request_object, response_object) = (body(Part::RequestObject), body(Part::ResponseObject));
    if [request_object, response_object].into_iter().flatten().any(may_hold_nested) {
        return Err(Stop);
    }
    let received = timestamp("requestReceivedTimestamp", document, part(Part::RequestReceivedTimestamp))?;
    let stage_time = timestamp("stageTimestamp", document, part(Part::StageTimestamp))?;
    let annotations = match part(Part::Annotations) {
        Some(member) => rows.annotations(document, member)?,
        None => NO_ANNOTATIONS,
    };

    // Nothing is refused from here on.
    canonical = canonical
        && user.canonical
        && impersonated.canonical
        && ips.canonical
        && object.canonical
        && status.canonical
        && received.1
        && stage_time.1
        && head_end <= SHAPE_BYTES_MAX
        && [Part::RequestObject, Part::ResponseObject, Part::Annotations]
            .into_iter()
            .all(|at| part(at).is_none_or(|member| !document.is_null(member)))
        && [
            (Part::Level, level),
            (Part::AuditId, audit_id),
            (Part::Stage, stage),
            (Part::RequestUri, request_uri),
            (Part::Verb, verb),
            (Part::UserAgent, user_agent),
        ]
        .into_iter()
        .all(|(at, value)| match (part(at), value) {
            (Some(member), Some(value)) => document.is_canonical_string(member, value),
            (Some(_), None) => false,
            (None, _) => true,
        });
    let shape = canonical.then(|| &line[1..head_end.max(1)]);
    let (raw, shape) = match shape.map(std::str::from_utf8) {
        Some(Ok(SHAPE_DEFAULT)) => (None, NULL),
        Some(Ok(shape)) => (None, rows.shape.dictionary.intern(shape)),
        _ => (Some(line), NULL),
    };
    Ok(Row {
        audit_id: audit_id.map(str::as_bytes),
        stage: rows.stage.dictionary.intern_opt(stage),
        level: rows.level.dictionary.intern_opt(level),
        verb: rows.verb.dictionary.intern_opt(verb),
        request_uri: rows.request_uri.dictionary.intern_opt(request_uri),
        user_agent: rows.user_agent.dictionary.intern_opt(user_agent),
        user,
        impersonated,
        source_ips: ips.list,
        object,
        resource_version,
        status,
        request_object,
        response_object,
        annotations,
        received: received.0,
        stage_time: stage_time.0,
        raw,
        shape,
        faults: NULL,
    })
}
