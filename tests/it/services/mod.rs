//! Real services, started for a test and ended with it, and faulty proxies in front of them.

pub mod cuts;
pub mod debian;
pub mod faults;
pub mod ports;
pub mod receiver;
pub mod seaweed;
pub mod tansu;

use std::process::Command;
use std::time::Duration;

pub use self::ports::free_port;

/// Stops a process for a while, so that it hangs like one on a machine that is out of memory.
pub fn freeze(pid: u32, time: Duration) {
    let signal = |signal: &str| {
        let status = Command::new("kill").args([signal, &pid.to_string()]).status();
        assert!(status.expect("kill starts").success());
    };
    signal("-STOP");
    std::thread::sleep(time);
    signal("-CONT");
}
