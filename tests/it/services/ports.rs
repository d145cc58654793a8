//! Ports for services.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports of services are below those that the system gives to clients (Linux: from 32,768 on).
/// Otherwise the connection of some client may take a port between the check and its use, or while
/// the service is down; and a client of a closed port may be connected to itself.
const FIRST_PORT: u16 = 10_240;
const PORTS: u16 = 11_000;
/// SeaweedFS also listens this far above each of its ports.
const DISTANCE: u16 = 10_000;
/// Distance between the first ports of two test processes.
const STRIDE: u32 = 1_009;

/// A port that nothing listens on, given out once in a process.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(STRIDE);
    for _ in 0..PORTS {
        let next = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % u32::from(PORTS);
        let port = FIRST_PORT + u16::try_from(next).expect("below the number of ports");
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + DISTANCE) {
            return port;
        }
    }
    panic!("no free port");
}
