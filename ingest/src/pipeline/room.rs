//! Counts the bytes that blocks under way take, and makes the reader wait while there are too many.
//!
//! Invariants:
//! - All [`Taken`] together are at most the bound, unless there is only one: a block with one long
//!   line is under way alone.
//! - Only the reader waits here. A block that is under way only gives bytes back, so each block
//!   that the reader waits for is finished without the reader.
//! - A panic or an error elsewhere closes the room, which ends the wait.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The bytes that all blocks under way take.
pub(super) struct Room {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    taken: usize,
    is_closed: bool,
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Arc<Room> {
        Arc::new(Room { state: Mutex::default(), changed: Condvar::new(), bytes_max })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is two numbers, which are right after each change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` bytes are left, or until nothing is taken. Returns `None` if the room is
    /// closed.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let mut state = self.state();
        while !state.is_closed && state.taken > 0 && state.taken.saturating_add(bytes) > self.bytes_max {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_closed {
            return None;
        }
        state.taken = state.taken.saturating_add(bytes);
        Some(Taken { room: Arc::clone(self), bytes })
    }

    /// Like [`take`](Self::take), but returns `None` where that would wait.
    pub(super) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let mut state = self.state();
        let taken = state.taken.saturating_add(bytes);
        let is_free = !state.is_closed && (state.taken == 0 || taken <= self.bytes_max);
        is_free.then(|| {
            state.taken = taken;
            Taken { room: Arc::clone(self), bytes }
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

/// Closes a room when it is dropped.
pub(super) struct ClosesRoom(pub(super) Arc<Room>);

impl Drop for ClosesRoom {
    fn drop(&mut self) {
        self.0.change(|state| state.is_closed = true);
    }
}

/// The bytes of one job. They are given back when this is dropped.
pub(super) struct Taken {
    room: Arc<Room>,
    bytes: usize,
}

impl Taken {
    /// Adds what another block has taken.
    pub(super) fn add(&mut self, mut other: Taken) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back what is more than `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        if freed > 0 {
            self.bytes -= freed;
            self.room.change(|state| state.taken = state.taken.saturating_sub(freed));
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn bytes_are_waited_for_and_never_exceeded() {
        let room = Room::new(100);
        let most = AtomicUsize::new(0);
        let (blocks, finished) = crossbeam_channel::bounded::<Taken>(8);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let finished = finished.clone();
                scope.spawn(|| {
                    for mut taken in finished {
                        most.fetch_max(taken.room.state().taken, Ordering::Relaxed);
                        taken.shrink_to(taken.bytes / 3);
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
            }
            for number in 0..400 {
                let taken = room.take(1 + number * 37 % 60).expect("it is open");
                blocks.send(taken).expect("somebody receives");
            }
            drop(blocks);
        });
        assert!((60..=100).contains(&most.into_inner()));
        assert_eq!(room.state().taken, 0);
    }

    #[test]
    fn what_is_larger_than_the_room_is_alone() {
        let room = Room::new(100);
        let large = room.take(1_000).expect("nothing else is taken");
        std::thread::scope(|scope| {
            let next = scope.spawn(|| room.take(1).map(|taken| taken.bytes));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!next.is_finished());
            drop(large);
            assert_eq!(next.join().expect("no panic"), Some(1));
        });
    }

    #[test]
    fn what_is_not_waited_for_is_refused_or_added() {
        let room = Room::new(100);
        let mut first = room.try_take(500).expect("nothing is taken");
        assert!(room.try_take(1).is_none());
        first.shrink_to(60);
        first.add(room.try_take(40).expect("there is room"));
        assert!(room.try_take(1).is_none());
        drop(first);
        assert_eq!(room.state().taken, 0);
    }

    #[test]
    fn a_closed_room_ends_the_wait() {
        let room = Room::new(10);
        let _all = room.take(10).expect("it is open");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| room.take(1).is_none());
            drop(ClosesRoom(Arc::clone(&room)));
            assert!(waits.join().expect("no panic"));
        });
        assert!(room.take(0).is_none());
    }
}
