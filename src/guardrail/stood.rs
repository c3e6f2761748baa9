//! Where in a text literals stood that patterns need around their anchors.

/// Where literals stood, by their place in `needs`; first as they come, then sorted.
pub(super) struct Stood {
    /// By place, which of the lists is its own.
    lists: Vec<u32>,
    /// By list, how many entries it has; then, where it ends among the starts.
    ends: Vec<u32>,
    /// List and start, as they come.
    entries: Vec<(u32, u32)>,
    /// The starts of all lists, one list behind the other, each in the order of the text.
    starts: Vec<u32>,
}

/// No list.
const NONE: u32 = u32::MAX;

impl Stood {
    pub(super) fn new(places: usize) -> Self {
        let (ends, entries, starts) = (Vec::new(), Vec::new(), Vec::new());
        Self { lists: vec![NONE; places], ends, entries, starts }
    }

    pub(super) fn push(&mut self, place: usize, start: usize) {
        let Some(list) = self.lists.get_mut(place) else { return };
        if *list == NONE {
            *list = u32::try_from(self.ends.len()).unwrap_or(NONE);
            self.ends.push(0);
        }
        if let Some(count) = self.ends.get_mut(*list as usize) {
            *count += 1;
        }
        self.entries.push((*list, u32::try_from(start).unwrap_or(u32::MAX)));
    }

    /// Everything has come.
    pub(super) fn sort(&mut self) {
        let mut end = 0;
        for count in &mut self.ends {
            (end, *count) = (end + *count, end);
        }
        self.starts.resize(self.entries.len(), 0);
        for (list, start) in &self.entries {
            let Some(next) = self.ends.get_mut(*list as usize) else { continue };
            if let Some(slot) = self.starts.get_mut(*next as usize) {
                *slot = *start;
            }
            *next += 1;
        }
    }

    /// Whether a literal stood anywhere.
    pub(super) fn is_anywhere(&self, place: usize) -> bool {
        self.lists.get(place).is_some_and(|list| *list != NONE)
    }

    /// Whether a literal began at most so far before a byte or so far behind it.
    pub(super) fn is_near(
        &self,
        place: usize,
        at: usize,
        (before, behind): (usize, usize),
    ) -> bool {
        let list = self.list(place);
        let from = list.partition_point(|start| (*start as usize) + before < at);
        list.get(from).is_some_and(|start| (*start as usize) <= at + behind)
    }

    fn list(&self, place: usize) -> &[u32] {
        let Some(list) = self.lists.get(place).copied().filter(|list| *list != NONE) else {
            return &[];
        };
        let list = list as usize;
        let first = list.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(list).copied().unwrap_or(0);
        self.starts.get(first.unwrap_or(0) as usize..end as usize).unwrap_or_default()
    }
}
