//! Which names a send stream touches: what each was called before its first step, and what it is called after the last.
//!
//! The steps name files as they are called at that point, often by names that only exist in between (`o257-8-0`). So the
//! tree is followed through all renames, as far as the steps reach into it: of what no step names nothing is known, and
//! nothing needed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::stream::Step;

/// The tree as far as the steps reach.
#[derive(Debug)]
pub(crate) struct Namespace {
    names: Vec<Name>,
    most: usize,
}

/// One name of a file; a directory has one, and so is what is in it.
#[derive(Debug)]
struct Name {
    origin: Origin,
    /// The directory that it is in now and what it is called there. None where it is gone, and for the root.
    place: Option<(usize, Box<[u8]>)>,
    /// What is known of what is in it: None for a name that is gone.
    inside: HashMap<Box<[u8]>, Option<usize>>,
    /// How much the steps did to it.
    touch: Touch,
    moved: bool,
    linked: bool,
}

/// Where a name comes from.
#[derive(Debug)]
enum Origin {
    /// It is the root.
    Root,
    /// It was there before: the directory that it was in, and what it was called there.
    Before(usize, Box<[u8]>),
    /// A step made it.
    New { directory: bool },
}

/// How much was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touch {
    /// Nothing.
    None,
    /// Only its times were set.
    Times,
    /// Something else may have changed.
    Changed,
}

/// What a step touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Its path before the first step; None where it was not there.
    pub(crate) before: Option<Vec<u8>>,
    /// Its path after the last step; None where it is gone.
    pub(crate) after: Option<Vec<u8>>,
    /// How much was done to it.
    pub(crate) touch: Touch,
    /// Whether it is a directory that was made.
    pub(crate) new_directory: bool,
    /// Whether the file got one more name.
    pub(crate) linked: bool,
    /// Whether it got another path, rather than a directory above it.
    pub(crate) moved: bool,
}

/// Why the steps cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// They touch more names than are kept in memory.
    TooMany,
    /// They name what cannot be there.
    Contradiction(Vec<u8>),
}

impl Namespace {
    /// Nothing touched yet. At `most` so many names are kept.
    pub(crate) fn new(most: usize) -> Self {
        Self { names: vec![Name::new(Origin::Root, None)], most }
    }

    /// Follows one step.
    pub(crate) fn follow(&mut self, step: &Step<'_>) -> Result<(), Lost> {
        match *step {
            Step::Make { path, directory } => self.make(path, directory).map(drop),
            Step::Link { path, existing } => {
                let existing = self.find(existing)?;
                self.names[existing].change();
                self.names[existing].linked = true;
                let new = self.make(path, false)?;
                self.names[new].linked = true;
                Ok(())
            }
            Step::Rename { from, to } => {
                let name = self.find(from)?;
                self.take_away(name);
                self.names[name].change();
                self.names[name].moved = true;
                self.put(name, to)
            }
            Step::Remove { path } => {
                let name = self.find(path)?;
                self.take_away(name);
                self.names[name].change();
                Ok(())
            }
            Step::Times { path } => {
                let name = self.find(path)?;
                let touch = &mut self.names[name].touch;
                *touch = Touch::Times.max(*touch);
                Ok(())
            }
            Step::Change { path } => {
                let name = self.find(path)?;
                self.names[name].change();
                Ok(())
            }
        }
    }

    /// What was touched, in any order.
    pub(crate) fn touched(&self) -> impl Iterator<Item = Touched> {
        (0..self.names.len()).filter_map(|number| {
            let name = &self.names[number];
            let (before, after) = (self.before(number), self.after(number));
            // What was made and removed in between was never there.
            let seen = name.touch > Touch::None && (before.is_some() || after.is_some());
            seen.then(|| Touched {
                moved: name.moved && before != after,
                before,
                after,
                touch: name.touch,
                new_directory: matches!(name.origin, Origin::New { directory: true }),
                linked: name.linked,
            })
        })
    }

    fn make(&mut self, path: &[u8], directory: bool) -> Result<usize, Lost> {
        let name = self.add(Name::new(Origin::New { directory }, None))?;
        self.names[name].change();
        self.put(name, path)?;
        Ok(name)
    }

    fn add(&mut self, name: Name) -> Result<usize, Lost> {
        if self.names.len() >= self.most {
            return Err(Lost::TooMany);
        }
        self.names.push(name);
        Ok(self.names.len() - 1)
    }

    /// The name that has a path now.
    fn find(&mut self, path: &[u8]) -> Result<usize, Lost> {
        let contradiction = || Lost::Contradiction(path.to_vec());
        let mut at = 0;
        for component in path.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            at = match self.names[at].inside.get(component) {
                Some(known) => known.ok_or_else(contradiction)?,
                // All that is in a new directory some step put there.
                None if matches!(self.names[at].origin, Origin::New { .. }) => return Err(contradiction()),
                None => {
                    let component: Box<[u8]> = component.into();
                    let place = Some((at, component.clone()));
                    let name = self.add(Name::new(Origin::Before(at, component.clone()), place))?;
                    self.names[at].inside.insert(component, Some(name));
                    name
                }
            };
        }
        Ok(at)
    }

    /// Gives a name that has no place a path, at which nothing is.
    fn put(&mut self, name: usize, path: &[u8]) -> Result<(), Lost> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (above, last) = slash.map_or((&path[..0], path), |slash| (&path[..slash], &path[slash + 1..]));
        let above = self.find(above)?;
        let last: Box<[u8]> = last.into();
        match self.names[above].inside.entry(last.clone()) {
            Entry::Occupied(taken) if taken.get().is_some() => {
                return Err(Lost::Contradiction(path.to_vec()));
            }
            Entry::Occupied(mut free) => drop(free.insert(Some(name))),
            Entry::Vacant(free) => drop(free.insert(Some(name))),
        }
        self.names[name].place = Some((above, last));
        Ok(())
    }

    fn take_away(&mut self, name: usize) {
        if let Some((above, last)) = self.names[name].place.take() {
            self.names[above].inside.insert(last, None);
        }
    }

    fn before(&self, name: usize) -> Option<Vec<u8>> {
        self.path(name, |name| match &name.origin {
            Origin::Root => Some(None),
            Origin::Before(above, last) => Some(Some((*above, last))),
            Origin::New { .. } => None,
        })
    }

    fn after(&self, name: usize) -> Option<Vec<u8>> {
        self.path(name, |name| match (&name.origin, &name.place) {
            (Origin::Root, _) => Some(None),
            (_, Some((above, last))) => Some(Some((*above, last))),
            (_, None) => None,
        })
    }

    /// The path that comes of going up with `step`: to a directory with a name in it, to nowhere from the root, or None
    /// where the name has no such path.
    fn path<'a>(&'a self, name: usize, step: impl Fn(&'a Name) -> Up<'a>) -> Option<Vec<u8>> {
        let mut components: Vec<&[u8]> = Vec::new();
        let mut at = name;
        while let Some((above, last)) = step(&self.names[at])? {
            components.push(last);
            at = above;
            // Steps that move a directory into itself.
            if components.len() > self.names.len() {
                return None;
            }
        }
        components.reverse();
        Some(components.join(&b'/'))
    }
}

/// None: no path. Some(None): the root.
type Up<'a> = Option<Option<(usize, &'a [u8])>>;

impl Name {
    fn new(origin: Origin, place: Option<(usize, Box<[u8]>)>) -> Self {
        Self { origin, place, inside: HashMap::new(), touch: Touch::None, moved: false, linked: false }
    }

    fn change(&mut self) {
        self.touch = Touch::Changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    /// Before and after of all that is touched, sorted.
    fn follow(steps: &[Step<'_>]) -> Vec<(String, String)> {
        let mut namespace = Namespace::new(100);
        for step in steps {
            namespace.follow(step).unwrap();
        }
        places(&namespace)
    }

    fn places(namespace: &Namespace) -> Vec<(String, String)> {
        let text = |path: Option<Vec<u8>>| path.map_or("-".into(), |path| String::from_utf8(path).unwrap());
        let mut touched: Vec<_> =
            namespace.touched().map(|touched| (text(touched.before), text(touched.after))).collect();
        touched.sort();
        touched
    }

    fn rename<'a>(from: &'a [u8], to: &'a [u8]) -> Step<'a> {
        Step::Rename { from, to }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn temporary_names_are_followed() {
        let steps = [
            Step::Make { path: b"o300-9-0", directory: true },
            rename(b"o300-9-0", b"a/new"),
            Step::Make { path: b"o301-9-0", directory: false },
            Step::Change { path: b"o301-9-0" },
            rename(b"o301-9-0", b"a/new/file"),
            Step::Times { path: b"a" },
        ];
        assert_eq!(follow(&steps), pairs(&[("-", "a/new"), ("-", "a/new/file"), ("a", "a")]));
    }

    #[test]
    fn two_directories_that_changed_places() {
        let steps = [
            rename(b"a", b"o257-7-0"),
            rename(b"b", b"a"),
            rename(b"o257-7-0", b"b"),
            // Was a/x, is b/x.
            Step::Change { path: b"b/x" },
            Step::Remove { path: b"a/y" },
        ];
        let expected = [("a", "b"), ("a/x", "b/x"), ("b", "a"), ("b/y", "-")];
        assert_eq!(follow(&steps), pairs(&expected));
    }

    #[test]
    fn something_else_in_the_place_of_what_was_there() {
        let steps = [
            rename(b"d", b"o258-7-0"),
            Step::Make { path: b"o300-9-0", directory: false },
            rename(b"o300-9-0", b"d"),
            Step::Remove { path: b"o258-7-0/in" },
            Step::Remove { path: b"o258-7-0" },
            Step::Link { path: b"l", existing: b"f" },
            Step::Make { path: b"gone", directory: false },
            Step::Remove { path: b"gone" },
        ];
        let expected = [("-", "d"), ("-", "l"), ("d", "-"), ("d/in", "-"), ("f", "f")];
        assert_eq!(follow(&steps), pairs(&expected));
    }

    /// Between the same two subvolumes, with the content of files, as Linux 6.18 writes both versions: a directory and a
    /// file that changed places, one removed, one made, names added and removed, a file changed and cut off.
    #[test]
    fn recorded_streams_are_followed() {
        let streams: [&[u8]; 2] =
            [include_bytes!("../tests/streams/v1.stream"), include_bytes!("../tests/streams/v2.stream")];
        let expected = [
            ("", ""),
            ("-", "d"),
            ("-", "new"),
            ("-", "new/fifo"),
            ("-", "new/name"),
            ("-", "new/symlink"),
            ("-", "new/y"),
            ("d", "e"),
            ("d/one", "e/one"),
            ("gone", "-"),
            ("gone/link", "-"),
            ("gone/x", "-"),
            ("large", "large"),
            ("two", "-"),
        ];
        for stream in streams {
            let mut stream = Stream::new(stream).unwrap();
            let mut namespace = Namespace::new(100);
            while let Some(step) = stream.next().unwrap() {
                namespace.follow(&step).unwrap();
            }
            assert_eq!(places(&namespace), pairs(&expected));
        }
    }

    #[test]
    fn what_came_back_was_not_moved() {
        let mut namespace = Namespace::new(100);
        for step in [rename(b"d", b"o257-7-0"), rename(b"o257-7-0", b"d"), rename(b"e/f", b"g")] {
            namespace.follow(&step).unwrap();
        }
        let moved: Vec<_> = namespace.touched().map(|touched| touched.moved).collect();
        assert_eq!(moved, [false, true]);
    }

    #[test]
    fn contradictions_and_too_many_names_are_said() {
        let new = Step::Make { path: b"new", directory: true };
        for steps in [
            &[new, Step::Change { path: b"new/absent" }][..],
            &[new, new],
            &[Step::Remove { path: b"a" }, Step::Change { path: b"a/b" }],
            &[rename(b"a", b"b"), rename(b"a", b"c")],
        ] {
            let mut namespace = Namespace::new(100);
            let last = steps.iter().map(|step| namespace.follow(step)).last().unwrap();
            assert!(matches!(last, Err(Lost::Contradiction(_))), "{steps:?}: {last:?}");
        }
        let mut namespace = Namespace::new(3);
        assert_eq!(namespace.follow(&Step::Change { path: b"a/b" }), Ok(()));
        assert_eq!(namespace.follow(&Step::Change { path: b"c" }), Err(Lost::TooMany));
    }

    #[test]
    fn a_directory_in_itself_has_no_path() {
        let mut namespace = Namespace::new(100);
        namespace.follow(&rename(b"a", b"b")).unwrap();
        // "b" is out of the tree by the time its new place is looked for.
        assert!(matches!(namespace.follow(&rename(b"b", b"b/c")), Err(Lost::Contradiction(_))));
    }
}
