//! Work for an allocator as programs do it: vectors and strings that grow, maps, queues, shared nodes.
//!
//! Not a module of the library, which does without an allocator: who has one takes this file in by its path.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagemill_tests::Rng;

/// A node of a list that others share.
struct Node {
    value: u64,
    next: Option<Arc<Node>>,
}

/// What one worker has built. It may be looked at, changed and dropped on any CPU.
pub(crate) struct Collections {
    map: BTreeMap<u64, String>,
    numbers: Vec<u64>,
    queue: VecDeque<Box<[u8]>>,
    lists: Vec<Arc<Node>>,
}

impl Collections {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { map: BTreeMap::new(), numbers: Vec::new(), queue: VecDeque::new(), lists: Vec::new() }
    }

    /// Does `steps` steps: things come and go, and most stay.
    pub(crate) fn work(&mut self, rng: &mut Rng, steps: usize) {
        for _ in 0..steps {
            match rng.below(8) {
                0..3 => self.insert(rng.below(1000) as u64),
                3 => {
                    self.map.remove(&(rng.below(1000) as u64));
                }
                4 => self.numbers.extend((0..1 + rng.below(30)).map(|number| number as u64)),
                5 => self.queue.push_back(alloc::vec![rng.below(256) as u8; 1 + rng.below(700)].into_boxed_slice()),
                6 => self.share(rng),
                _ => self.drop_some(rng),
            }
        }
    }

    fn insert(&mut self, key: u64) {
        let mut text = String::new();
        for part in 0..key % 6 {
            text.push_str(&format!("{key}.{part} "));
        }
        self.map.insert(key, text);
    }

    /// A list of a few nodes whose tail is another's.
    fn share(&mut self, rng: &mut Rng) {
        let mut next = self.lists.last().cloned();
        for _ in 0..1 + rng.below(4) {
            let value = next.as_ref().map_or(0, |node: &Arc<Node>| node.value + 1);
            next = Some(Arc::new(Node { value, next }));
        }
        self.lists.extend(next);
    }

    fn drop_some(&mut self, rng: &mut Rng) {
        if self.numbers.len() > 3000 {
            self.numbers = Vec::new();
        }
        if self.lists.len() > 40 {
            // Tails that others share stay.
            self.lists.drain(..20);
        }
        for _ in 0..rng.below(4) {
            self.queue.pop_front();
        }
    }

    /// Asserts that nothing has changed but by its own work.
    ///
    /// # Panics
    /// If something has.
    pub(crate) fn assert_whole(&self) {
        for (key, text) in &self.map {
            let parts = text.split_ascii_whitespace();
            assert!(parts.clone().all(|part| part.split('.').next().and_then(|part| part.parse().ok()) == Some(*key)));
            assert_eq!(parts.count() as u64, key % 6, "{text:?} stands at {key}");
        }
        assert!(self.numbers.iter().all(|&number| number < 30));
        assert!(self.queue.iter().all(|bytes| bytes.iter().all(|byte| *byte == bytes[0])));
        for list in &self.lists {
            let nodes = core::iter::successors(Some(list), |node| node.next.as_ref());
            assert!(nodes.clone().zip(nodes.skip(1)).all(|(node, next)| node.value == next.value + 1));
        }
    }
}

impl Drop for Collections {
    fn drop(&mut self) {
        self.assert_whole();
        // One after the other: a list that is dropped as a whole goes as deep as it is long.
        for list in self.lists.drain(..).rev() {
            let mut next = Some(list);
            while let Some(node) = next.and_then(Arc::into_inner) {
                next = node.next;
            }
        }
    }
}
