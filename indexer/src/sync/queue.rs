//! The blocks that wait between loading and indexing, in the order of the chain: bounded in
//! number and bytes. When full, loading waits.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Most blocks that wait.
const MAX_BLOCKS: usize = 256;

/// A queue between threads that push, each item at its place, and one that pops.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    max_bytes: usize,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    /// Place of the next item.
    next: u32,
    closed: bool,
}

impl<T> Queue<T> {
    /// A queue that lets no further item in when it has this many bytes.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                next: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            max_bytes,
        }
    }

    /// Waits for room and for the items before this one, and adds it. `false` if the queue is
    /// closed.
    pub(super) fn push(&self, place: u32, item: T, bytes: usize) -> bool {
        let mut state = self.state.lock();
        while !state.closed
            && (state.next != place
                || state.items.len() >= MAX_BLOCKS
                || state.bytes >= self.max_bytes)
        {
            self.changed.wait(&mut state);
        }
        if state.closed {
            return false;
        }
        state.bytes += bytes;
        state.next += 1;
        state.items.push_back((item, bytes));
        self.changed.notify_all();
        true
    }

    /// Says that there is no item at this place: waits for those before it and closes the
    /// queue.
    pub(super) fn end(&self, place: u32) {
        let mut state = self.state.lock();
        while !state.closed && state.next != place {
            self.changed.wait(&mut state);
        }
        state.closed = true;
        self.changed.notify_all();
    }

    /// Whether no more items are let in.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
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

    /// Closes the queue if the guard goes because of a panic.
    pub(super) fn closes_on_panic(&self) -> ClosesOnPanic<'_, T> {
        ClosesOnPanic(self)
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

/// See [`Queue::closes_on_panic`].
pub(super) struct ClosesOnPanic<'a, T>(&'a Queue<T>);

impl<T> Drop for ClosesOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.closes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_order_and_bounded() {
        const THREADS: u32 = 3;

        let queue = Queue::new(400);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let queue = &queue;
                scope.spawn(move || {
                    for i in (thread..1000).step_by(THREADS as usize) {
                        assert!(queue.push(i, i, 100));
                        assert!(queue.state.lock().items.len() <= 4);
                    }
                    queue.end(1000);
                });
            }
            for i in 0..1000 {
                assert_eq!(queue.pop(), Some(i));
            }
            assert_eq!(queue.pop(), None);
        });
    }

    #[test]
    fn a_closed_queue_lets_nobody_wait() {
        let queue = Queue::new(1 << 20);
        std::thread::scope(|scope| {
            let pusher = scope.spawn(|| (0..1000).all(|i| queue.push(i, i, 0)));
            let ahead = scope.spawn(|| queue.push(5000, 0, 0));
            let ending = scope.spawn(|| queue.end(6000));
            assert_eq!(queue.pop(), Some(0));
            drop(queue.closes());
            assert!(!pusher.join().unwrap());
            assert!(!ahead.join().unwrap());
            ending.join().unwrap();
        });
    }
}
