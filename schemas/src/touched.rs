//! What the events of an alert touch: their namespaces, users and clusters, and their offsets in
//! their sources.
//!
//! Invariant: a name or an offset that was added is always found. Every list is bounded. If a bound
//! is exceeded, more is found than was added, and never less: a list of names becomes [`ANY`],
//! neighbouring ranges of one source become one range, and ranges of too many sources become one
//! range of any source. So a reader that asks whether an alert touches a namespace, a user or a
//! record may get a false yes, but never a false no. No state.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Stands for every name if it is the only item of a list, and for every source if it is the source
/// of a range.
pub const ANY: &str = "*";
/// Maximum number of namespaces that one alert names.
pub const NAMESPACES_MAX: usize = 64;
/// Maximum number of users that one alert names.
pub const ACTORS_MAX: usize = 64;
/// Maximum number of clusters that one alert names.
pub const CLUSTERS_MAX: usize = 16;
/// Maximum number of ranges of offsets that one alert names.
pub const EVENT_RANGES_MAX: usize = 64;
/// Longest name in a list, in bytes; a longer name counts as any name. The longest user name of a
/// service account fits.
pub const NAME_BYTES_MAX: usize = 384;

/// The names of an event that its alert keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Touch<'a> {
    pub namespace: Option<&'a str>,
    /// The impersonated user if there is one, else the user.
    pub actor: &'a str,
    /// The authenticated user.
    pub user_name: &'a str,
    pub cluster: &'a str,
    pub source: &'a str,
}

/// What the events of an alert touch; empty for an alert without events.
///
/// ```
/// use strongroom_schemas::touched::{Touch, Touched};
///
/// let mut touched = Touched::default();
/// let touch = Touch { namespace: Some("shop"), actor: "eve", user_name: "eve", cluster: "prod", source: "file/1" };
/// touched.add(touch, 17, 17);
/// assert_eq!(touched.namespaces(), ["shop"]);
/// assert_eq!(touched.event_ranges(), r#"[["file/1",17,17]]"#);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Touched {
    namespaces: Names<NAMESPACES_MAX>,
    actors: Names<ACTORS_MAX>,
    clusters: Names<CLUSTERS_MAX>,
    event_ranges: Ranges,
}

impl Touched {
    /// Returns a value that touches every name and every offset, for events that are no longer
    /// known.
    pub fn any() -> Touched {
        let mut touched = Touched::default();
        touched.widen();
        touched
    }

    /// Returns what the single event of an alert touches.
    pub fn of(touch: Touch<'_>, source_offset: i64) -> Touched {
        let mut touched = Touched::default();
        touched.add(touch, source_offset, source_offset);
        touched
    }

    /// Makes the value from columns of the table `alerts`; `None` if `event_ranges` is not in the
    /// format of its column.
    pub fn from_columns(
        namespaces: Vec<String>,
        actors: Vec<String>,
        clusters: Vec<String>,
        event_ranges: &str,
    ) -> Option<Touched> {
        Some(Touched {
            namespaces: Names::from_list(namespaces),
            actors: Names::from_list(actors),
            clusters: Names::from_list(clusters),
            event_ranges: serde_json::from_str(event_ranges).ok()?,
        })
    }

    /// Adds events that have the same names and are at the offsets `first` to `last` of their
    /// source.
    pub fn add(&mut self, touch: Touch<'_>, first: i64, last: i64) {
        touch.namespace.into_iter().for_each(|namespace| self.namespaces.add(namespace));
        // An event may have no user.
        if !touch.actor.is_empty() {
            self.actors.add(touch.actor);
        }
        if !touch.user_name.is_empty() && touch.user_name != touch.actor {
            self.actors.add(touch.user_name);
        }
        if !touch.cluster.is_empty() {
            self.clusters.add(touch.cluster);
        }
        self.event_ranges.add(touch.source, first, last);
    }

    /// Adds what the events of another alert touch.
    pub fn merge(&mut self, other: &Touched) {
        other.namespaces.0.iter().for_each(|name| self.namespaces.add(name));
        other.actors.0.iter().for_each(|name| self.actors.add(name));
        other.clusters.0.iter().for_each(|name| self.clusters.add(name));
        other
            .event_ranges
            .iter()
            .for_each(|(source, first, last)| self.event_ranges.add(source, first, last));
    }

    /// Replaces all names and offsets, so that every name and every offset is touched.
    pub fn widen(&mut self) {
        self.namespaces.widen();
        self.actors.widen();
        self.clusters.widen();
        self.event_ranges = Ranges::any(0, i64::MAX);
    }

    /// Returns the number of names and ranges, a measure of memory.
    pub fn items(&self) -> usize {
        self.namespaces.0.len() + self.actors.0.len() + self.clusters.0.len() + self.event_ranges.count
    }

    /// Returns the namespaces of the events, sorted and distinct; or [`ANY`] alone.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces.0
    }

    /// Returns the authenticated and the impersonated users of the events, sorted and distinct; or
    /// [`ANY`] alone.
    pub fn actors(&self) -> &[String] {
        &self.actors.0
    }

    /// Returns the clusters of the events, sorted and distinct; or [`ANY`] alone.
    pub fn clusters(&self) -> &[String] {
        &self.clusters.0
    }

    /// Returns the ranges in the format of the column `event_ranges`: JSON,
    /// `[["<source>", first, last], …]`, sorted.
    pub fn event_ranges(&self) -> String {
        serde_json::to_string(&self.event_ranges).expect("a list of texts and numbers")
    }

    /// Returns each range as its source, first offset and last offset; sorted.
    pub fn ranges(&self) -> impl Iterator<Item = (&str, i64, i64)> {
        self.event_ranges.iter()
    }
}

/// Names, sorted and distinct, at most `MAX`; or [`ANY`] alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct Names<const MAX: usize>(Vec<String>);

impl<const MAX: usize> Names<MAX> {
    fn from_list(list: Vec<String>) -> Self {
        let mut names = Names(Vec::new());
        list.iter().for_each(|name| names.add(name));
        names
    }

    fn is_any(&self) -> bool {
        matches!(self.0.as_slice(), [only] if only == ANY)
    }

    fn widen(&mut self) {
        self.0 = vec![ANY.to_owned()];
    }

    fn add(&mut self, name: &str) {
        if self.is_any() {
            return;
        }
        let Err(at) = self.0.binary_search_by(|known| known.as_str().cmp(name)) else { return };
        if name == ANY || name.len() > NAME_BYTES_MAX || self.0.len() == MAX {
            return self.widen();
        }
        self.0.insert(at, name.to_owned());
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Names<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Names::from_list(Vec::deserialize(deserializer)?))
    }
}

/// Ranges of offsets, by source. The ranges of a source are sorted, disjoint and not adjacent.
/// There are at most [`EVENT_RANGES_MAX`] ranges in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    by_source: BTreeMap<String, Vec<(i64, i64)>>,
    count: usize,
}

impl Ranges {
    fn any(first: i64, last: i64) -> Ranges {
        Ranges { by_source: BTreeMap::from([(ANY.to_owned(), vec![(first, last)])]), count: 1 }
    }

    fn iter(&self) -> impl Iterator<Item = (&str, i64, i64)> {
        self.by_source
            .iter()
            .flat_map(|(source, ranges)| ranges.iter().map(|(first, last)| (source.as_str(), *first, *last)))
    }

    fn add(&mut self, source: &str, first: i64, last: i64) {
        let is_full = self.count >= EVENT_RANGES_MAX;
        let Some(ranges) = self.by_source.get_mut(source) else {
            return self.add_source(source, first, last);
        };
        // Streams deliver ranges in order, so a new range is usually after all known ranges.
        if let Some(newest) = ranges.last_mut().filter(|newest| newest.1 < first.saturating_sub(1)) {
            if is_full {
                newest.1 = last;
            } else {
                ranges.push((first, last));
                self.count += 1;
            }
            return;
        }
        // The ranges from `from` to before `to` overlap the new range or are adjacent to it.
        let from = ranges.partition_point(|known| known.1 < first.saturating_sub(1));
        let to = ranges.partition_point(|known| known.0 <= last.saturating_add(1));
        if from < to {
            let joined = (ranges[from].0.min(first), ranges[to - 1].1.max(last));
            ranges[from] = joined;
            ranges.drain(from + 1..to);
            self.count -= to - from - 1;
            return;
        }
        // The new range is before a known range and does not meet any.
        if is_full {
            ranges[from].0 = first;
        } else {
            ranges.insert(from, (first, last));
            self.count += 1;
        }
    }

    /// Adds the first range of a source.
    fn add_source(&mut self, source: &str, first: i64, last: i64) {
        // An event whose source is unknown may be from any source.
        let is_any = source.is_empty() || source.len() > NAME_BYTES_MAX || source == ANY;
        if is_any || self.by_source.contains_key(ANY) {
            return self.add_any(first, last);
        }
        if self.count >= EVENT_RANGES_MAX {
            let crowded = self.by_source.values_mut().find(|ranges| ranges.len() > 1);
            let Some(ranges) = crowded else { return self.add_any(first, last) };
            if let Some((_, end)) = ranges.pop()
                && let Some(before) = ranges.last_mut()
            {
                before.1 = end;
            }
            self.count -= 1;
        }
        self.by_source.insert(source.to_owned(), vec![(first, last)]);
        self.count += 1;
    }

    /// Merges all ranges and the range from `first` to `last` into one range of any source.
    fn add_any(&mut self, first: i64, last: i64) {
        let bounds =
            self.iter().fold((first, last), |(first, last), (_, from, to)| (first.min(from), last.max(to)));
        *self = Ranges::any(bounds.0, bounds.1);
    }
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ranges = Ranges::default();
        for (source, first, last) in Vec::<(String, i64, i64)>::deserialize(deserializer)? {
            ranges.add(&source, first.min(last), last.max(first));
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch<'a>(namespace: &'a str, actor: &'a str, source: &'a str) -> Touch<'a> {
        Touch { namespace: Some(namespace), actor, user_name: actor, cluster: "prod", source }
    }

    /// Returns true if a reader of the columns finds an event.
    fn finds(touched: &Touched, event: Touch<'_>, offset: i64) -> bool {
        let has = |list: &[String], name: &str| list.iter().any(|known| known == name || known == ANY);
        let ranges: Vec<(String, i64, i64)> = serde_json::from_str(&touched.event_ranges()).unwrap();
        event.namespace.is_none_or(|namespace| has(touched.namespaces(), namespace))
            && has(touched.actors(), event.actor)
            && has(touched.actors(), event.user_name)
            && has(touched.clusters(), event.cluster)
            && ranges.iter().any(|(source, first, last)| {
                (source == event.source || source == ANY) && (*first..=*last).contains(&offset)
            })
    }

    #[test]
    fn names_are_sorted_and_distinct_and_both_users_are_named() {
        let mut touched = Touched::default();
        touched.add(touch("shop", "eve", "file/b"), 30, 30);
        touched.add(Touch { namespace: None, actor: "root", ..touch("", "eve", "file/a") }, 7, 7);
        touched.add(touch("bank", "eve", "file/b"), 10, 10);
        assert_eq!(touched.namespaces(), ["bank", "shop"]);
        assert_eq!(touched.actors(), ["eve", "root"]);
        assert_eq!(touched.clusters(), ["prod"]);
        assert_eq!(touched.event_ranges(), r#"[["file/a",7,7],["file/b",10,10],["file/b",30,30]]"#);
        assert_eq!(touched.items(), 8);
        assert_eq!(Touched::default().event_ranges(), "[]");
    }

    #[test]
    fn ranges_that_meet_are_one() {
        let mut touched = Touched::default();
        for (first, last) in [(10, 20), (40, 50), (21, 22), (60, 60), (45, 55)] {
            touched.add(touch("n", "a", "s"), first, last);
        }
        assert_eq!(touched.event_ranges(), r#"[["s",10,22],["s",40,55],["s",60,60]]"#);
        touched.add(touch("n", "a", "s"), 0, 100);
        assert_eq!(touched.event_ranges(), r#"[["s",0,100]]"#);
        touched.add(touch("n", "a", "s"), i64::MIN, i64::MAX);
        assert_eq!(touched.items(), 4);
    }

    #[test]
    fn what_exceeds_a_bound_is_still_found() {
        for (namespaces, actors, sources) in
            [(500, 1, 1), (1, 500, 1), (1, 1, 500), (500, 500, 500), (3, 3, 64)]
        {
            let mut touched = Touched::default();
            let events: Vec<(String, String, String, i64)> = (0..500_i64)
                .map(|at| {
                    let name = |what: &str, of: i64| format!("{what}{}", at % of);
                    // The offsets are neither in order nor at equal distances.
                    let offset = (at * 7919) % 1009 * ((at % 5) * 1000 + 1);
                    (name("n", namespaces), name("a", actors), name("s", sources), offset)
                })
                .collect();
            for (namespace, actor, source, offset) in &events {
                touched.add(touch(namespace, actor, source), *offset, *offset);
                let bound = NAMESPACES_MAX + ACTORS_MAX + CLUSTERS_MAX + EVENT_RANGES_MAX;
                assert!(touched.items() <= bound && touched.ranges().count() <= EVENT_RANGES_MAX);
            }
            let flat: Vec<(&str, i64, i64)> = touched.ranges().collect();
            assert_eq!(flat.len(), touched.event_ranges.count);
            assert!(
                flat.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].2 + 1 < pair[1].1),
                "{flat:?}"
            );
            for (namespace, actor, source, offset) in &events {
                assert!(finds(&touched, touch(namespace, actor, source), *offset));
            }
            assert_eq!(touched.namespaces() == [ANY], namespaces > 64);
            assert_eq!(touched.actors() == [ANY], actors > 64);
            assert_eq!(touched.event_ranges().starts_with(r#"[["*","#), sources > 64);
        }
    }

    #[test]
    fn a_name_that_is_cut_or_stands_for_any_is_any() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let mut touched = Touched::of(touch("shop", "eve", "s"), 1);
        touched.add(touch(&long, ANY, ""), 9, 9);
        assert_eq!((touched.namespaces(), touched.actors()), (&["*".to_owned()][..], &["*".to_owned()][..]));
        assert_eq!(touched.event_ranges(), r#"[["*",1,9]]"#);
        touched.add(touch("later", "later", "later"), 4, 40);
        assert_eq!(touched.namespaces(), [ANY]);
        assert_eq!(touched.event_ranges(), r#"[["*",1,40]]"#);
    }

    #[test]
    fn any_is_any() {
        let touched = Touched::any();
        assert!(finds(&touched, touch("n", "a", "s"), 0) && finds(&touched, touch("n", "a", "s"), i64::MAX));
    }

    #[test]
    fn columns_give_it_back() {
        let mut touched = Touched::of(touch("shop", "eve", "s"), 1);
        touched.merge(&Touched::of(touch("bank", "bob", "t"), 2));
        let again = |touched: &Touched| {
            let (namespaces, actors, clusters) = (touched.namespaces(), touched.actors(), touched.clusters());
            let lists = (namespaces.to_vec(), actors.to_vec(), clusters.to_vec());
            Touched::from_columns(lists.0, lists.1, lists.2, &touched.event_ranges())
        };
        assert_eq!(again(&touched), Some(touched.clone()));
        assert_eq!(again(&Touched::any()), Some(Touched::any()));
        assert_eq!(Touched::from_columns(vec![], vec![], vec![], "{"), None);
        let text = serde_json::to_string(&touched).unwrap();
        assert_eq!(serde_json::from_str::<Touched>(&text).unwrap(), touched);
        let none: Touched = serde_json::from_str("{}").unwrap();
        assert_eq!(none, Touched::default());
    }
}
