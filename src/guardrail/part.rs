//! A part of a list that many share: what belongs to one thing stands in a row, and nothing is a list of its own.

/// Where in a list what belongs to something stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    first: u32,
    count: u32,
}

impl Part {
    /// Adds to the end of a list what belongs to something.
    pub(super) fn add<T>(list: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Self {
        let first = list.len();
        list.extend(items);
        Self::between(first, list.len())
    }

    /// What was added to a list between two of its lengths. No list has more than four billion items.
    pub(super) fn between(first: usize, end: usize) -> Self {
        let number = |one: usize| u32::try_from(one).unwrap_or(u32::MAX);
        Self { first: number(first), count: number(end - first) }
    }

    /// What belongs to it.
    pub(super) fn of<T>(self, list: &[T]) -> &[T] {
        list.get(self.first as usize..self.first as usize + self.count as usize).unwrap_or_default()
    }

    pub(super) fn len(self) -> usize {
        self.count as usize
    }
}
