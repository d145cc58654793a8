//! Bounds the number of *strangers*: connections whose clients have not authenticated yet.
//!
//! A client needs no credentials to open a connection and send nothing. So strangers have a small
//! room of their own, and take no place from clients that are known. When the room is full, a new
//! stranger is let in all the same, and another one is sent away: the oldest one from the address
//! that has most strangers. A client that has something to send is a stranger only for some
//! milliseconds.
//!
//! Example: a room for three has two strangers from 10.0.0.1 and one from 10.0.0.2. When 10.0.0.3
//! connects, the older stranger from 10.0.0.1 leaves.
//!
//! Invariant: there are never more strangers than the room has places, nor more than
//! `of_address_max` from one address (in IPv6, from one /64 network).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// A room for strangers.
#[derive(Debug)]
pub struct Door {
    places_max: usize,
    of_address_max: usize,
    strangers: Mutex<Strangers>,
}

#[derive(Debug, Default)]
struct Strangers {
    next: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    count: HashMap<IpAddr, usize>,
}

impl Strangers {
    fn remove(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (address, leave) = self.all.remove(&number)?;
        if let Some(count) = self.count.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&address);
            }
        }
        Some(leave)
    }

    /// Sends away the stranger of `address` that came first.
    fn send_away(&mut self, address: IpAddr) {
        let first = self.all.iter().find(|(_, (of, _))| *of == address).map(|(number, _)| *number);
        if let Some(leave) = first.and_then(|number| self.remove(number)) {
            leave.notify_one();
        }
    }
}

/// A stranger's place in the room, which is given up when this value is dropped.
#[derive(Debug)]
pub struct Stranger {
    door: Arc<Door>,
    number: u64,
    leave: Arc<Notify>,
}

impl Stranger {
    /// Returns when the stranger has to leave. Cancel safe.
    pub async fn sent_away(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.door.strangers.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number);
    }
}

impl Door {
    pub fn new(places_max: usize, of_address_max: usize) -> Arc<Door> {
        Arc::new(Door { places_max, of_address_max, strangers: Mutex::default() })
    }

    /// Lets a stranger in. Another stranger may have to leave to make room.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Stranger {
        let address = network_of(address);
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.count.get(&address).is_some_and(|count| *count >= self.of_address_max.max(1)) {
            strangers.send_away(address);
        } else if strangers.all.len() >= self.places_max.max(1) {
            let most = strangers.count.iter().max_by_key(|(_, count)| **count).map(|(of, _)| *of);
            if let Some(most) = most {
                strangers.send_away(most);
            }
        }
        let (number, leave) = (strangers.next, Arc::new(Notify::new()));
        strangers.next += 1;
        strangers.all.insert(number, (address, Arc::clone(&leave)));
        *strangers.count.entry(address).or_insert(0) += 1;
        Stranger { door: Arc::clone(self), number, leave }
    }
}

/// Returns the part of an address that a client cannot vary: in IPv6, the /64 network.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_away(stranger: &Stranger) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(1), stranger.sent_away()).await.is_ok()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_oldest_of_the_address_that_has_most_leaves() {
        let door = Door::new(6, 4);
        let flood: Vec<Stranger> = (0..4).map(|_| door.enter(address("10.0.0.1"))).collect();
        let other = door.enter(address("10.0.0.2"));
        // At the bound of its address.
        let fifth = door.enter(address("10.0.0.1"));
        assert!(is_away(&flood[0]) && !is_away(&flood[1]));
        // The room is full when somebody else comes, so a stranger of the flooding address leaves.
        let third = door.enter(address("10.0.0.3"));
        let fourth = door.enter(address("10.0.0.4"));
        assert!(is_away(&flood[1]) && !is_away(&flood[2]));
        assert!([&other, &fifth, &third, &fourth].iter().all(|stranger| !is_away(stranger)));
        drop((flood, fifth));
        let strangers = door.strangers.lock().expect("no panic holds it");
        assert_eq!((strangers.all.len(), strangers.count.len()), (3, 3));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(network_of(address("2001:db8::1")), network_of(address("2001:db8::2:3:4:5")));
        assert_ne!(network_of(address("2001:db8::1")), network_of(address("2001:db8:0:1::1")));
        assert_eq!(network_of(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
