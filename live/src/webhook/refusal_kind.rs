//! The kinds of refused requests and connections.
//!
//! Invariant: a kind's name is a value of a metric's label, so a name is never given to another
//! kind. No state.

/// Declares the kinds of refusals, each with its name in metrics and what an operator should check.
macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident $name:literal $hint:literal;)*) => {
        /// Why something was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RefusalKind {
            $($(#[$about])* $kind,)*
        }

        impl RefusalKind {
            pub const ALL: &'static [RefusalKind] = &[$(RefusalKind::$kind),*];

            /// Returns the kind's name in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(RefusalKind::$kind => $name,)* }
            }

            /// Returns what an operator should check.
            pub(super) fn hint(self) -> &'static str {
                match self { $(RefusalKind::$kind => $hint,)* }
            }
        }
    };
}

kinds! {
    /// 401.
    Credentials "credentials" "compare the sender's token or access key with the one that this webhook or its route is configured with";
    /// 403.
    CertificateName "certificate_name" "client_names of the route lists who may post there";
    /// 404, or 401 without credentials.
    Path "path" "no route has this path; compare it with the server URL that the sender is configured with";
    /// 405.
    Method "method" "only POST is served; health checks belong to [observe] listen";
    /// 415.
    Encoding "encoding" "the sender compresses its bodies; turn that off";
    /// 413.
    TooLong "too_long" "the sender gives this batch up, and its events are lost: let the API server truncate \
        (--audit-webhook-truncate-enabled, --audit-webhook-truncate-max-batch-size, \
        --audit-webhook-truncate-max-event-size) or send fewer events at once (--audit-webhook-batch-max-size), \
        a delivery stream should buffer less; or raise body and memory of this webhook";
    /// 400: the content is not what the route takes.
    Body "body" "the sender gives this batch up; is it what the format of the route says?";
    /// 400: the connection ended before the body did.
    BrokenOff "broken_off" "the sender or something between it and us ended the request";
    /// 408.
    TooSlow "too_slow" "the network between the sender and us is too slow for bodies of this size";
    /// 429: too many requests or too much text at once.
    Busy "busy" "the sender tries again; raise memory if this lasts";
    /// A handshake in which the client showed no certificate.
    NoCertificate "no_certificate" "client_ca_file is set, so each client needs a certificate";
    /// A handshake in which the client showed a certificate that is not valid here.
    Certificate "certificate" "the client's certificate is not valid, or not issued by an authority in client_ca_file";
    /// A handshake that the client ended, because it does not trust the listener's certificate.
    NotTrusted "not_trusted" "the sender does not accept our certificate: compare cert_file with the sender's \
        certificate-authority and tls-server-name";
    /// A connection that does not speak TLS.
    NotTls "not_tls" "the sender must use https";
    /// Any other failed handshake.
    Handshake "handshake" "TLS 1.2 or 1.3 is needed";
    /// A handshake that took too long.
    HandshakeTimeout "handshake_timeout" "the sender connected and then said nothing";
    /// A connection whose client had not authenticated yet, and which was closed to make room for a
    /// newer one.
    Crowded "crowded" "somebody opens connections and sends nothing; known senders are not affected";
    /// As many known senders are connected as allowed. A further one was closed after its first
    /// answer.
    Connections "connections" "the sender tries again; raise connections, or find out who holds them";
    /// A connection that the operating system could not accept.
    Accept "accept" "is the limit of open files too low?";
    /// A connection that was closed in the handshake, as port scanners do. Not logged.
    Closed "closed" "";
}
