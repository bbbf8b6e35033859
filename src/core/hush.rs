//! Which of many like events may be said aloud: of each kind the first, then at most one in a while, with the number of
//! those that were not.

use super::Micros;
use std::collections::HashMap;
use std::hash::Hash;

/// Most kinds that are told apart; further ones are not said while as many are remembered.
const KINDS: usize = 4096;

struct Said {
    last: Micros,
    unsaid: u64,
}

/// What was said lately, by kind.
pub struct Hush<K> {
    every: Micros,
    kinds: HashMap<K, Said>,
}

impl<K: Clone + Eq + Hash> Hush<K> {
    /// At most one event of a kind in `every`.
    pub fn new(every: Micros) -> Self {
        Hush { every, kinds: HashMap::new() }
    }

    /// Whether an event of this kind may be said now; the number of its kind that were not said since the last one.
    pub fn admit(&mut self, kind: &K, now: Micros) -> Option<u64> {
        if let Some(said) = self.kinds.get_mut(kind) {
            if now < said.last.saturating_add(self.every) {
                said.unsaid += 1;
                return None;
            }
            said.last = now;
            return Some(std::mem::take(&mut said.unsaid));
        }
        if self.kinds.len() >= KINDS {
            self.forget(now);
        }
        if self.kinds.len() >= KINDS {
            return None;
        }
        self.kinds.insert(kind.clone(), Said { last: now, unsaid: 0 });
        Some(0)
    }

    /// The kinds of which some were not said and one might be now, with their number: it counts as said.
    pub fn overdue(&mut self, now: Micros) -> Vec<(K, u64)> {
        let every = self.every;
        let due = self.kinds.iter_mut().filter(|(_, said)| said.unsaid > 0 && now >= said.last.saturating_add(every));
        due.map(|(kind, said)| {
            said.last = now;
            (kind.clone(), std::mem::take(&mut said.unsaid))
        })
        .collect()
    }

    /// When there is next something overdue.
    pub fn next(&self) -> Option<Micros> {
        let unsaid = self.kinds.values().filter(|said| said.unsaid > 0);
        unsaid.map(|said| said.last.saturating_add(self.every)).min()
    }

    fn forget(&mut self, now: Micros) {
        let every = self.every;
        self.kinds.retain(|_, said| said.unsaid > 0 || now < said.last.saturating_add(every));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_one_in_a_while_with_the_number_of_the_others() {
        let mut hush = Hush::new(60);
        let said: Vec<_> = [0, 1, 59, 60, 61, 200].map(|now| hush.admit(&"a", now)).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
        assert_eq!(hush.admit(&"b", 61), Some(0), "each kind counts its own");
    }

    #[test]
    fn the_number_is_said_also_when_no_further_event_comes() {
        let mut hush = Hush::new(60);
        let said: Vec<_> = (0..5).filter_map(|now| hush.admit(&"a", now)).collect();
        assert_eq!(said, [0]);
        hush.admit(&"b", 3);
        assert_eq!(hush.next(), Some(60));
        assert_eq!(hush.overdue(59), []);
        assert_eq!(hush.overdue(60), [("a", 4)]);
        assert_eq!((hush.overdue(500), hush.next()), (vec![], None));
        assert_eq!(hush.admit(&"a", 100), None, "the number was a line of its own");
    }

    #[test]
    fn kinds_are_forgotten_before_they_take_room_for_ever() {
        let mut hush = Hush::new(60);
        (0..KINDS).for_each(|kind| assert_eq!(hush.admit(&kind, 0), Some(0)));
        assert_eq!(hush.admit(&KINDS, 59), None);
        assert_eq!(hush.admit(&KINDS, 60), Some(0));
        assert_eq!(hush.kinds.len(), 1);
    }
}
