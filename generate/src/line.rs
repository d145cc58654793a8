//! Renders a request and the audit events that it causes, as kube-apiserver's log backend writes
//! them.
//!
//! Invariant: fields appear in the order of the Go struct `Event` (k8s.io/apiserver
//! `pkg/apis/audit/v1/types.go`), a field that Go omits when it is empty is absent when it is
//! empty, and every value is escaped as Go does it. Only this module decides how the stages of one
//! request differ. For example, `RequestReceived` is written before authorisation, so it has
//! neither a response nor annotations, and on `create` and `update` it lacks what only the body
//! contains.

use crate::go;
use crate::random::{Uuid, derived_uuid};

pub(crate) const METADATA: &str = "Metadata";
pub(crate) const REQUEST: &str = "Request";
pub(crate) const REQUEST_RESPONSE: &str = "RequestResponse";

pub(crate) const REQUEST_RECEIVED: &str = "RequestReceived";
pub(crate) const RESPONSE_STARTED: &str = "ResponseStarted";
pub(crate) const RESPONSE_COMPLETE: &str = "ResponseComplete";
pub(crate) const PANIC: &str = "Panic";

/// The user of a request, in rendered parts.
#[derive(Clone)]
pub(crate) struct Actor {
    pub username: String,
    /// The rendered `user` object up to the token id.
    user_head: String,
    /// The rest of the object, after the token id. If `session` is `None`, `user_head` is the whole
    /// object.
    user_tail: String,
    session: Option<Session>,
    /// Rendered JSON array.
    pub source_ips: String,
    pub agent: String,
    /// Rendered members of the `annotations` object of a request that is allowed.
    pub allowed: String,
}

/// A bearer token that is renewed from time to time. Its id (JTI) is a function of the actor and
/// the period.
#[derive(Clone, Copy)]
struct Session {
    identity: u64,
    lifetime_us: i64,
}

/// The values from which an [`Actor`] is made.
pub(crate) struct ActorSpec<'a> {
    pub username: &'a str,
    pub uid: &'a str,
    pub groups: &'a [&'a str],
    /// Rendered members of `extra` other than the credential id, in the order of their keys.
    pub extra: &'a str,
    pub credential: Credential<'a>,
    pub source_ips: &'a [&'a str],
    pub agent: &'a str,
    /// Value of `authorization.k8s.io/reason`.
    pub reason: &'a str,
}

pub(crate) enum Credential<'a> {
    None,
    /// Fingerprint of a client certificate.
    Certificate(&'a str),
    /// A token that is renewed after `lifetime_us`.
    Token {
        identity: u64,
        lifetime_us: i64,
    },
}

impl Actor {
    pub fn new(spec: ActorSpec<'_>) -> Actor {
        let mut head = Vec::from(*b"{");
        if !spec.username.is_empty() {
            head.extend_from_slice(b"\"username\":");
            go::string(&mut head, spec.username);
        }
        if !spec.uid.is_empty() {
            head.extend_from_slice(b",\"uid\":");
            go::string(&mut head, spec.uid);
        }
        if !spec.groups.is_empty() {
            head.extend_from_slice(b",\"groups\":");
            strings(&mut head, spec.groups);
        }
        let mut tail = String::new();
        let mut session = None;
        match spec.credential {
            Credential::None => {}
            Credential::Certificate(fingerprint) => {
                head.extend_from_slice(
                    b",\"extra\":{\"authentication.kubernetes.io/credential-id\":[\"X509SHA256=",
                );
                head.extend_from_slice(fingerprint.as_bytes());
                head.extend_from_slice(b"\"]}");
            }
            Credential::Token { identity, lifetime_us } => {
                head.extend_from_slice(b",\"extra\":{\"authentication.kubernetes.io/credential-id\":[\"JTI=");
                tail.push_str("\"]");
                if !spec.extra.is_empty() {
                    tail.push(',');
                    tail.push_str(spec.extra);
                }
                tail.push_str("}}");
                session = Some(Session { identity, lifetime_us });
            }
        }
        if session.is_none() {
            head.push(b'}');
        }
        let mut source_ips = Vec::new();
        strings(&mut source_ips, spec.source_ips);
        Actor {
            username: spec.username.to_owned(),
            user_head: String::from_utf8(head).expect("escaping keeps UTF-8"),
            user_tail: tail,
            session,
            source_ips: String::from_utf8(source_ips).expect("escaping keeps UTF-8"),
            agent: spec.agent.to_owned(),
            allowed: allowed(spec.reason),
        }
    }

    /// Returns the same identity with another address and client, as if its token was stolen.
    pub fn seen_from(&self, source_ips: &[&str], agent: &str) -> Actor {
        let mut rendered = Vec::new();
        strings(&mut rendered, source_ips);
        Actor {
            source_ips: String::from_utf8(rendered).expect("escaping keeps UTF-8"),
            agent: agent.to_owned(),
            ..self.clone()
        }
    }

    /// Appends the `user` object with the credential that is in use at `at_us`.
    fn write_user(&self, out: &mut Vec<u8>, at_us: i64) {
        out.extend_from_slice(self.user_head.as_bytes());
        if let Some(session) = self.session {
            let period = at_us.div_euclid(session.lifetime_us) as u64;
            out.extend_from_slice(&derived_uuid(session.identity, period));
            out.extend_from_slice(self.user_tail.as_bytes());
        }
    }
}

/// Returns the rendered annotation members of an allowed request.
pub(crate) fn allowed(reason: &str) -> String {
    format!(
        r#""authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"{}""#,
        go::escaped(reason)
    )
}

/// The rendered annotation members of a denied request.
pub(crate) const FORBIDDEN: &str =
    r#""authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":"""#;

fn strings(out: &mut Vec<u8>, values: &[&str]) {
    out.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        go::string(out, value);
    }
    out.push(b']');
}

/// The `objectRef` of an event. Empty fields are left out; if all are empty, the request is not
/// about a resource.
#[derive(Clone, Copy, Default)]
pub(crate) struct ObjectRef<'a> {
    pub resource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource_version: u64,
    pub subresource: &'a str,
}

impl ObjectRef<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"objectRef\":{\"resource\":\"");
        out.extend_from_slice(self.resource.as_bytes());
        out.push(b'"');
        member(out, b",\"namespace\":", self.namespace);
        member(out, b",\"name\":", self.name);
        member(out, b",\"uid\":", self.uid);
        member(out, b",\"apiGroup\":", self.group);
        member(out, b",\"apiVersion\":", self.version);
        if self.resource_version != 0 {
            out.extend_from_slice(b",\"resourceVersion\":\"");
            number(out, self.resource_version);
            out.push(b'"');
        }
        member(out, b",\"subresource\":", self.subresource);
        out.push(b'}');
    }
}

fn member(out: &mut Vec<u8>, key: &[u8], value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(key);
        go::string(out, value);
    }
}

pub(crate) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The `responseStatus` of an event.
#[derive(Clone, Copy)]
pub(crate) enum Status<'a> {
    /// `{"metadata":{},"code":200}`, which is how the server records an ordinary success.
    Code(u16),
    /// Only a message and a code, as for a failed authentication.
    Message { message: &'a str, code: u16 },
    /// A `Status` object that reports success, as for a delete; `details` is rendered JSON.
    Success { details: &'a str, code: u16 },
    /// A `Status` object that reports a failure; `details` is rendered JSON or empty.
    Failure { message: &'a str, reason: &'a str, details: &'a str, code: u16 },
}

impl Status<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"responseStatus\":{\"metadata\":{}");
        let code = match *self {
            Status::Code(code) => code,
            Status::Message { message, code } => {
                member(out, b",\"message\":", message);
                code
            }
            Status::Success { details, code } => {
                out.extend_from_slice(b",\"status\":\"Success\",\"details\":");
                out.extend_from_slice(details.as_bytes());
                code
            }
            Status::Failure { message, reason, details, code } => {
                out.extend_from_slice(b",\"status\":\"Failure\"");
                member(out, b",\"message\":", message);
                member(out, b",\"reason\":", reason);
                if !details.is_empty() {
                    out.extend_from_slice(b",\"details\":");
                    out.extend_from_slice(details.as_bytes());
                }
                code
            }
        };
        out.extend_from_slice(b",\"code\":");
        number(out, u64::from(code));
        out.push(b'}');
    }
}

/// A request: the parts that all of its events have in common.
pub(crate) struct Request<'a> {
    pub level: &'static str,
    pub audit_id: Uuid,
    /// The URI as it was sent, not escaped.
    pub uri: &'a str,
    pub verb: &'a str,
    pub actor: &'a Actor,
    /// Rendered `impersonatedUser` object, or empty.
    pub impersonated: &'a str,
    pub object: ObjectRef<'a>,
    /// Rendered JSON, or empty.
    pub body: &'a [u8],
    pub received_us: i64,
    /// Rendered annotation members, or empty.
    pub annotations: &'a str,
}

impl Request<'_> {
    /// Appends the event that is written when the request arrives.
    pub fn received(&self, out: &mut Vec<u8>) {
        self.head(out, REQUEST_RECEIVED);
        if !self.object.resource.is_empty() {
            let from_body = matches!(self.verb, "create" | "update");
            let object = if from_body {
                ObjectRef {
                    uid: "",
                    resource_version: 0,
                    name: if self.verb == "create" && self.object.subresource.is_empty() {
                        ""
                    } else {
                        self.object.name
                    },
                    ..self.object
                }
            } else {
                self.object
            };
            object.write(out);
        }
        self.tail(out, self.received_us, "");
    }

    /// Appends the event of a later stage; `response` is the rendered response object, or empty.
    pub fn answered(
        &self,
        out: &mut Vec<u8>,
        stage: &'static str,
        at_us: i64,
        status: Status<'_>,
        response: &[u8],
    ) {
        self.head(out, stage);
        if !self.object.resource.is_empty() {
            self.object.write(out);
        }
        status.write(out);
        if self.level != METADATA {
            if !self.body.is_empty() {
                out.extend_from_slice(b",\"requestObject\":");
                out.extend_from_slice(self.body);
            }
            if self.level == REQUEST_RESPONSE && stage == RESPONSE_COMPLETE && !response.is_empty() {
                out.extend_from_slice(b",\"responseObject\":");
                out.extend_from_slice(response);
            }
        }
        self.tail(out, at_us, self.annotations);
    }

    fn head(&self, out: &mut Vec<u8>, stage: &str) {
        out.extend_from_slice(b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"");
        out.extend_from_slice(self.level.as_bytes());
        out.extend_from_slice(b"\",\"auditID\":\"");
        out.extend_from_slice(&self.audit_id);
        out.extend_from_slice(b"\",\"stage\":\"");
        out.extend_from_slice(stage.as_bytes());
        out.extend_from_slice(b"\",\"requestURI\":");
        go::string(out, self.uri);
        out.extend_from_slice(b",\"verb\":\"");
        out.extend_from_slice(self.verb.as_bytes());
        out.extend_from_slice(b"\",\"user\":");
        self.actor.write_user(out, self.received_us);
        if !self.impersonated.is_empty() {
            out.extend_from_slice(b",\"impersonatedUser\":");
            out.extend_from_slice(self.impersonated.as_bytes());
        }
        out.extend_from_slice(b",\"sourceIPs\":");
        out.extend_from_slice(self.actor.source_ips.as_bytes());
        member(out, b",\"userAgent\":", &self.actor.agent);
    }

    fn tail(&self, out: &mut Vec<u8>, at_us: i64, annotations: &str) {
        out.extend_from_slice(b",\"requestReceivedTimestamp\":\"");
        go::micro_time(out, self.received_us);
        out.extend_from_slice(b"\",\"stageTimestamp\":\"");
        go::micro_time(out, at_us);
        out.push(b'"');
        if !annotations.is_empty() {
            out.extend_from_slice(b",\"annotations\":{");
            out.extend_from_slice(annotations.as_bytes());
            out.push(b'}');
        }
        out.extend_from_slice(b"}\n");
    }
}
