//! Ports for services.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports of services are below those that the system gives to clients (Linux: from 32,768 on).
/// Otherwise the connection of some client may take a service's port after it was found to be free,
/// or while the service is down. A client of a closed port may even be connected to itself.
const FIRST_PORT: u16 = 10_240;
const PORTS: u16 = 11_000;
/// For each of its ports, SeaweedFS also listens on the port whose number is this much greater.
const DISTANCE: u16 = 10_000;
/// Distance between the first ports of two test processes.
const STRIDE: u32 = 1_009;

/// Returns a port on which nothing listens. A process gets each port only once.
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
