//! The blocks that wait between loading and indexing: bounded in number and bytes.
//! When full, loading waits.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Most blocks that wait.
const MAX_BLOCKS: usize = 16;

/// Bytes in the block files after which no further block is let in.
const MAX_BYTES: usize = 8 << 20;

/// A queue between one thread that pushes and one that pops.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Waits for room and adds an item. `false` if the queue is closed.
    pub(super) fn push(&self, item: T, bytes: usize) -> bool {
        let mut state = self.state.lock();
        while !state.closed && (state.items.len() >= MAX_BLOCKS || state.bytes >= MAX_BYTES) {
            self.changed.wait(&mut state);
        }
        if state.closed {
            return false;
        }
        state.bytes += bytes;
        state.items.push_back((item, bytes));
        self.changed.notify_all();
        true
    }

    /// Waits for an item. `None` when the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some((item, bytes)) = state.items.pop_front() {
                state.bytes -= bytes;
                self.changed.notify_all();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Closes the queue when the guard goes, also by an early return or a panic, so
    /// that neither side waits for the other forever.
    pub(super) fn closes(&self) -> Closes<'_, T> {
        Closes(self)
    }
}

/// See [`Queue::closes`].
pub(super) struct Closes<'a, T>(&'a Queue<T>);

impl<T> Drop for Closes<'_, T> {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_order_and_bounded() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _closes = queue.closes();
                for i in 0..1000 {
                    assert!(queue.push(i, MAX_BYTES / 4));
                    assert!(queue.state.lock().items.len() <= 4);
                }
            });
            for i in 0..1000 {
                assert_eq!(queue.pop(), Some(i));
            }
            assert_eq!(queue.pop(), None);
        });
    }

    #[test]
    fn a_closed_queue_lets_nobody_wait() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            let pusher = scope.spawn(|| (0..100).all(|i| queue.push(i, 0)));
            assert_eq!(queue.pop(), Some(0));
            drop(queue.closes());
            assert!(!pusher.join().unwrap());
        });
    }
}
