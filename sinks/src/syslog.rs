//! Sends alerts by syslog: RFC 5424 messages over TLS (RFC 5425), or over TCP or UDP if configured
//! explicitly.
//!
//! Invariants:
//! - On a stream, each message is preceded by its length in bytes (octet counting), which is
//!   counted after the message is final. A message has no control characters.
//! - A message is never cut at its end. If it is too long, optional parts of the alert are left out
//!   first, and then the alert's text is shortened. If the message is still too long, the alert is
//!   refused.
//! - TLS is verified, and a connection never falls back from TLS to TCP.
//!
//! **Best effort.** Syslog has no acknowledgement: messages that the kernel took may be lost when a
//! connection breaks. So the messages of the last [`UNCONFIRMED_TIME`] on a broken connection are
//! sent again on the next one, with the same ids. They are not sent again after a crash. Over UDP,
//! losses are never noticed.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use strongroom_schemas::{Alert, Severity, ocsf};

use super::cef::cef;
use super::{Outcome, Sink, SinkError, TlsOptions, plain, rfc3339};

/// Default of [`SyslogOptions::bytes_max`]: the message length that receivers should accept (RFC
/// 5425, 4.3.1).
pub const SYSLOG_BYTES_MAX_DEFAULT: usize = 8192;
/// Facility 13, log audit.
const FACILITY: u8 = 13;
const BATCH_MAX: usize = 128;
/// Maximum number of messages that are sent again when a connection breaks.
const UNCONFIRMED_MAX: usize = 4096;
const UNCONFIRMED_TIME: Duration = Duration::from_secs(10);
const CONNECT_TIME: Duration = Duration::from_secs(10);
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long to check, before a write, whether the receiver has closed the connection.
const LISTEN_TIME: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tls,
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogFormat {
    /// The OCSF finding.
    Json,
    Cef,
}

#[derive(Clone, Debug)]
pub struct SyslogOptions {
    /// Name and port of the receiver. Its certificate must be for this name.
    pub address: String,
    pub transport: Transport,
    pub tls: TlsOptions,
    pub format: SyslogFormat,
    /// Maximum size of a message, including its header.
    pub bytes_max: usize,
    /// The field HOSTNAME of the messages.
    pub hostname: String,
}

enum Connection {
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Tcp(TcpStream),
    Udp(UdpSocket),
}

pub struct Syslog {
    options: SyslogOptions,
    /// Name in the certificate and settings, if the transport is TLS.
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    connection: Option<Connection>,
    unconfirmed: VecDeque<(Instant, Vec<u8>)>,
    last_result: String,
}

impl Syslog {
    /// # Errors
    /// When the address is not valid, or TLS cannot be set up.
    pub fn new(options: SyslogOptions) -> Result<Syslog, SinkError> {
        let wrong = SinkError::Address { what: "is not a name and port, such as \"siem.example:6514\"" };
        let Some((host, port)) = options.address.rsplit_once(':') else { return Err(wrong) };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(name) = ServerName::try_from(host.to_owned()) else { return Err(wrong) };
        if port.parse::<u16>().is_err() {
            return Err(wrong);
        }
        let tls = match options.transport {
            Transport::Tls => Some((name, Arc::new(options.tls.client()?))),
            Transport::Tcp | Transport::Udp => None,
        };
        Ok(Syslog {
            options,
            tls,
            connection: None,
            unconfirmed: VecDeque::new(),
            last_result: String::new(),
        })
    }

    fn connect(&self) -> std::io::Result<Connection> {
        let addresses: Vec<_> = self.options.address.to_socket_addrs()?.collect();
        if self.options.transport == Transport::Udp {
            let any = if addresses.iter().any(|address| address.is_ipv6()) { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(&addresses[..])?;
            return Ok(Connection::Udp(socket));
        }
        let mut failed = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(WRITE_TIME))?;
                    stream.set_read_timeout(Some(WRITE_TIME))?;
                    let Some((name, config)) = &self.tls else { return Ok(Connection::Tcp(stream)) };
                    let client = ClientConnection::new(Arc::clone(config), name.clone());
                    let client = client.map_err(std::io::Error::other)?;
                    let mut stream = StreamOwned::new(client, stream);
                    while stream.conn.is_handshaking() {
                        stream.conn.complete_io(&mut stream.sock)?;
                    }
                    return Ok(Connection::Tls(Box::new(stream)));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Writes frames. On a new connection, it first writes the earlier frames that may not have
    /// arrived.
    fn write(&mut self, frames: &[Vec<u8>]) -> std::io::Result<()> {
        let alive = self.connection.as_mut().is_some_and(Connection::is_alive);
        if !alive {
            self.connection = None;
        }
        let mut resent = Vec::new();
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
            resent = self.unconfirmed.drain(..).collect();
        }
        let old = Instant::now();
        self.unconfirmed.retain(|(sent, _)| old.duration_since(*sent) < UNCONFIRMED_TIME);
        let result = {
            let connection = self.connection.as_mut().expect("made above");
            let resent = resent.iter().map(|(_, frame)| frame);
            resent
                .chain(frames)
                .try_for_each(|frame| connection.write(frame))
                .and_then(|()| connection.flush())
        };
        let now = Instant::now();
        // If the connection breaks, it is possible that none of these frames has arrived.
        self.unconfirmed.extend(resent.into_iter().map(|(_, frame)| (now, frame)));
        if let Err(error) = result {
            self.connection = None;
            return Err(error);
        }
        if self.options.transport != Transport::Udp {
            self.unconfirmed.extend(frames.iter().map(|frame| (now, frame.clone())));
            while self.unconfirmed.len() > UNCONFIRMED_MAX {
                self.unconfirmed.pop_front();
            }
        }
        Ok(())
    }
}

impl Connection {
    fn write(&mut self, frame: &[u8]) -> std::io::Result<()> {
        match self {
            Connection::Tls(stream) => stream.write_all(frame),
            Connection::Tcp(stream) => stream.write_all(frame),
            Connection::Udp(socket) => socket.send(frame).map(|_| ()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Connection::Tls(stream) => stream.flush(),
            Connection::Tcp(stream) => stream.flush(),
            Connection::Udp(_) => Ok(()),
        }
    }

    /// Returns `false` if the receiver has closed the connection.
    fn is_alive(&mut self) -> bool {
        let listen = |socket: &TcpStream, time| socket.set_read_timeout(Some(time)).is_ok();
        let mut byte = [0; 64];
        let read = match self {
            Connection::Udp(_) => return true,
            Connection::Tcp(stream) => {
                if !listen(stream, LISTEN_TIME) {
                    return false;
                }
                let read = stream.read(&mut byte);
                listen(stream, WRITE_TIME);
                read
            }
            Connection::Tls(stream) => {
                if !listen(&stream.sock, LISTEN_TIME) {
                    return false;
                }
                let read = stream.read(&mut byte);
                listen(&stream.sock, WRITE_TIME);
                read
            }
        };
        match read {
            Ok(read) => read > 0,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// Returns an alert as one message of at most `bytes_max` bytes, or `None` if it cannot be made
/// that short.
pub fn rfc5424(alert: &Alert, format: SyslogFormat, hostname: &str, bytes_max: usize) -> Option<Vec<u8>> {
    let severity = match alert.severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
    };
    let head = format!(
        "<{}>1 {} {} strongroom {} alert - ",
        FACILITY * 8 + severity,
        rfc3339(alert.time_us),
        printable_ascii(hostname, 255),
        std::process::id(),
    );
    let mut shorter = alert.clone();
    for step in 0..6 {
        match step {
            1 => shorter.next_steps = String::new(),
            2 => {
                shorter.audit_ids.truncate(1);
                shorter.touched.widen();
            }
            3 => shorter.event.user_agent = None,
            4 => shorter.event.request_uri = None,
            5 => shorter.message = plain(&shorter.message, 200),
            _ => {}
        }
        let payload = match format {
            SyslogFormat::Cef => cef(&shorter),
            SyslogFormat::Json => serde_json::to_string(&ocsf::detection_finding(&shorter))
                .expect("a finding has text keys and finite numbers"),
        };
        // JSON escapes control characters except DEL and C1, which must not reach a terminal.
        let payload: String = payload.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        if head.len() + payload.len() <= bytes_max {
            return Some([head.as_bytes(), payload.as_bytes()].concat());
        }
    }
    None
}

/// Returns the value of a header field: the printable ASCII characters of `text`, or `-` if there
/// are none.
fn printable_ascii(text: &str, bytes_max: usize) -> String {
    let value: String = text.chars().filter(char::is_ascii_graphic).take(bytes_max).collect();
    if value.is_empty() { "-".to_owned() } else { value }
}

impl Sink for Syslog {
    fn send(&mut self, alerts: &[Arc<Alert>]) -> Vec<Outcome> {
        let SyslogOptions { format, bytes_max, transport, hostname, .. } = &self.options;
        let messages: Vec<Option<Vec<u8>>> =
            alerts.iter().map(|alert| rfc5424(alert, *format, hostname, *bytes_max)).collect();
        let framed = messages.iter().flatten().map(|message| match transport {
            Transport::Udp => message.clone(),
            Transport::Tls | Transport::Tcp => [format!("{} ", message.len()).as_bytes(), message].concat(),
        });
        let frames: Vec<Vec<u8>> = framed.collect();
        let outcome = match self.write(&frames) {
            Ok(()) => {
                self.last_result = "written; syslog has no acknowledgement".to_owned();
                Outcome::Taken
            }
            Err(error) => {
                self.last_result = plain(&error.to_string(), 300);
                Outcome::later(format!("{}: {}", self.options.address, self.last_result))
            }
        };
        let bytes_max = self.options.bytes_max;
        let too_long =
            || Outcome::Refused { reason: format!("the message is longer than {bytes_max} bytes") };
        messages.iter().map(|made| if made.is_some() { outcome.clone() } else { too_long() }).collect()
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn answer(&self) -> String {
        self.last_result.clone()
    }

    fn finish(&mut self) {
        if let Some(Connection::Tls(mut stream)) = self.connection.take() {
            // The receiver may be gone already.
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{alert, hostile};

    #[test]
    fn a_message_has_a_head_and_no_control_character() {
        for format in [SyslogFormat::Json, SyslogFormat::Cef] {
            let message =
                rfc5424(&hostile(), format, "gate way\n", 8192).expect("the message is short enough");
            let text = String::from_utf8(message).expect("UTF-8");
            assert!(text.starts_with("<107>1 2026-03-02T10:00:00.000Z gateway strongroom "), "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let text = rfc5424(&alert(1), SyslogFormat::Json, "", 8192).expect("the message is short enough");
        let text = String::from_utf8(text).expect("UTF-8");
        let json = text.split_once(" alert - ").expect("a head").1;
        let finding: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(finding["finding_info"]["uid"], alert(1).alert_id);
    }

    #[test]
    fn what_is_too_long_loses_parts_or_is_refused_and_is_never_cut() {
        let mut long = alert(1);
        long.audit_ids = (0..32).map(|n| format!("{n:064}")).collect();
        long.event.request_uri = Some("/x".repeat(4000));
        let message = rfc5424(&long, SyslogFormat::Json, "h", 4096).expect("the message is short enough");
        assert!(message.len() <= 4096);
        let text = String::from_utf8(message).expect("UTF-8");
        let json = text.split_once(" alert - ").expect("a head").1;
        assert!(serde_json::from_str::<serde_json::Value>(json).is_ok());
        long.event.name = Some("n".repeat(5000));
        assert_eq!(rfc5424(&long, SyslogFormat::Json, "h", 4096), None);
    }
}
