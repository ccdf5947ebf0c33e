//! What all files of a folder say together, and which part of it is news. Floor 1.
//!
//! Tell it what was known before the start ([`Scene::remember`]), then what became of each file ([`Scene::take`], [`Scene::spoil`],
//! [`Scene::drop_file`]), and ask [`Scene::news`]. What a file lost, and what is missing of before, stays until [`Scene::let_go`].
//!
//! The last object of a text may be cut off, and nothing in the text tells: a list of endpoints that is not written yet is an empty
//! one. So of a file that is not as long as it was, or lacks something, the last object counts as lost where it says something else.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifests::document::{Content, Entry, Subject, entry_of};
use crate::world::{Fact, Listing};

/// For how many looks objects of before the start stay where the folder describes none at all, two minutes: what is mounted there may
/// come later, and systemd waits 90 s for a mount.
const EMPTY_AFTER: u32 = 240;

/// The files and what was told of them.
#[derive(Default)]
pub struct Scene {
    files: BTreeMap<String, File>,
    /// Files that could never be read. What they say is unknown, so no list may be called complete.
    never_read: BTreeSet<String>,
    told: BTreeMap<Subject, Content>,
    /// What was known before the start, and no file describes yet.
    missing: BTreeMap<Subject, Content>,
    /// At how many looks it was missing from a folder that describes other objects.
    missed: u32,
    /// At how many looks from one that describes none.
    empty: u32,
    /// Whether the World was last told that the lists are complete.
    complete: bool,
}

#[derive(Default)]
struct File {
    entries: Vec<Entry>,
    /// What it said before and does not say now.
    lost: BTreeMap<Subject, Lost>,
    /// What its last object said before the text may have been cut off within it.
    cut: Option<(Subject, Lost)>,
    /// How it is now, and how it was when it was last whole.
    extent: Extent,
    whole: Option<Extent>,
    /// There is no such file any more; it is kept for what is lost.
    is_gone: bool,
}

/// How much there is of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Device and number: another one where another file was put in its place.
    pub inode: (u64, u64),
    pub octets: u64,
}

struct Lost {
    content: Content,
    /// How often [`Scene::count_look`] was called since.
    looks: u32,
}

/// Whether `before` is lost where an object says `now`: it is described no more, or no LoadBalancer any more. The address of a Pod may be
/// another one's at once, so nothing of a Pod stays.
fn is_lost(before: &Content, now: Option<&Content>) -> bool {
    !matches!(before, Content::Pod(_)) && now.is_none_or(|now| before.is_load_balancer() && !now.is_load_balancer())
}

impl File {
    /// It says this now, where all files together `told` that before. Whether anything is lost by that which was not lost before.
    fn say(&mut self, entries: Vec<Entry>, told: &BTreeMap<Subject, Content>, lacks: bool) -> bool {
        let former = std::mem::replace(&mut self.entries, entries);
        let mut now: BTreeMap<&Subject, &Content> = BTreeMap::new();
        for (subject, content) in &self.entries {
            now.entry(subject).or_insert(content);
        }
        self.lost.retain(|subject, lost| is_lost(&lost.content, now.get(subject).copied()));
        let lost_before = self.lost.len();
        let cut_before = self.cut.take();
        for (subject, said) in former {
            // Half an object is nothing to go back to.
            let whole = cut_before.as_ref().filter(|(cut, _)| *cut == subject).map(|(_, lost)| lost.content.clone());
            let content = whole.unwrap_or(said);
            if is_lost(&content, now.get(&subject).copied()) {
                self.lost.entry(subject).or_insert(Lost { content, looks: 0 });
            }
        }
        if (lacks || self.is_short(cut_before.is_some()))
            && let Some((last, said)) = self.entries.last()
            && now.get(last).is_some_and(|now| std::ptr::eq(*now, said))
            && let Some(content) = told.get(last).filter(|told| *told != said && !matches!(told, Content::Pod(_)))
            && !self.lost.contains_key(last)
        {
            let looks = cut_before.as_ref().filter(|(cut, _)| cut == last).map_or(0, |(_, lost)| lost.looks);
            self.cut = Some((last.clone(), Lost { content: content.clone(), looks }));
        }
        self.note_whole();
        self.lost.len() > lost_before || (self.cut.is_some() && cut_before.is_none())
    }

    /// Whether there is less of it than there was, so that the rest may be still to come. Another file that was put in its place was
    /// written before that; one of which nothing was whole yet is as it was.
    fn is_short(&self, was_cut: bool) -> bool {
        let is_shorter = |whole: Extent| {
            let is_same_file = self.is_gone || self.extent.inode == whole.inode;
            is_same_file && self.extent.octets < whole.octets
        };
        !self.lost.is_empty() || self.whole.map_or(was_cut, is_shorter)
    }

    fn note_whole(&mut self) {
        if self.lost.is_empty() && self.cut.is_none() {
            self.whole = Some(self.extent);
        }
    }

    fn has_lost_any(&self) -> bool {
        !self.lost.is_empty() || self.cut.is_some()
    }

    fn count_look(&mut self) {
        let cut = self.cut.iter_mut().map(|(_, lost)| lost);
        self.lost.values_mut().chain(cut).for_each(|lost| lost.looks += 1);
    }

    fn let_go(&mut self, looks: u32) {
        self.lost.retain(|_, lost| lost.looks < looks);
        self.cut.take_if(|(_, lost)| lost.looks >= looks);
        self.note_whole();
    }

    /// What it said last stays, and with it what was lost before.
    fn keep(&mut self) {
        self.is_gone = false;
        let mut lost = std::mem::take(&mut self.lost);
        lost.extend(self.cut.take());
        self.entries.retain(|(subject, _)| !lost.contains_key(subject));
        self.entries.extend(lost.into_iter().map(|(subject, lost)| (subject, lost.content)));
    }
}

/// How long what is missing of before the start stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Until every file can be read: it may be in one that cannot.
    UntilRead,
    /// For two minutes: the folder describes no object.
    Empty,
    /// As what a file lost.
    Lacks,
}

/// An object that two places describe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duplicate {
    pub subject: Subject,
    /// The file that is used: the first by name.
    pub taken: String,
    pub ignored: String,
}

/// What is to be told.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// What changed, ordered by subject; then, unless a file could never be read, that the lists are complete.
    pub facts: Vec<Fact>,
    pub duplicates: Vec<Duplicate>,
}

impl Scene {
    /// What an agent before this one knew, from a folder as well. Call it before anything else.
    pub fn remember(&mut self, facts: Vec<Fact>) {
        self.missing = facts.into_iter().filter_map(entry_of).collect();
        self.told = self.missing.clone();
    }

    /// The file holds these objects now, and is that long. Whether it lost any, or may be cut off; what it lost stays for now.
    pub fn take(&mut self, file: &str, entries: Vec<Entry>, extent: Extent) -> bool {
        self.never_read.remove(file);
        let lacks = !self.missing.is_empty();
        let file = self.files.entry(file.to_owned()).or_default();
        file.extent = extent;
        let has_lost = file.say(entries, &self.told, lacks);
        file.is_gone = false;
        has_lost
    }

    /// The file cannot be read: what it held before stays in use.
    pub fn spoil(&mut self, file: &str) {
        match self.files.get_mut(file) {
            Some(file) => file.keep(),
            None => drop(self.never_read.insert(file.to_owned())),
        }
    }

    /// Whether anything of the file is in use.
    pub fn knows(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// The file is gone. Whether it held any object; what it held stays for now.
    pub fn drop_file(&mut self, file: &str) -> bool {
        self.never_read.remove(file);
        let Some(file) = self.files.get_mut(file) else { return false };
        file.is_gone = true;
        let lost_any = file.say(Vec::new(), &self.told, false);
        self.forget_gone();
        lost_any
    }

    /// Whether anything is lost and stays for now, until it is let go.
    pub fn has_lost_any(&self) -> bool {
        let waits = self.never_read.is_empty() && !self.missing.is_empty();
        waits || self.files.values().any(File::has_lost_any)
    }

    /// What was known before the start, and no file describes.
    pub fn missing(&self) -> impl ExactSizeIterator<Item = &Subject> {
        self.missing.keys()
    }

    /// Why that is so, and how long.
    pub fn stay(&self) -> Stay {
        match (self.never_read.is_empty(), self.is_empty()) {
            (false, _) => Stay::UntilRead,
            (true, true) => Stay::Empty,
            (true, false) => Stay::Lacks,
        }
    }

    /// No file describes any object.
    fn is_empty(&self) -> bool {
        self.files.values().all(|file| file.entries.is_empty())
    }

    /// The folder was looked at once more.
    pub fn count_look(&mut self) {
        self.files.values_mut().for_each(File::count_look);
        (self.missed, self.empty) = match self.stay() {
            // They count from when the files can be read.
            Stay::UntilRead => (0, 0),
            Stay::Empty => (0, self.empty.saturating_add(1)),
            Stay::Lacks => (self.missed.saturating_add(1), self.empty),
        };
    }

    /// What is lost for at least so many looks is gone. What is missing of before the start waits for longer in an empty folder, and for good
    /// while there is a file that could never be read.
    pub fn let_go(&mut self, looks: u32) {
        self.files.values_mut().for_each(|file| file.let_go(looks));
        let is_over = match self.stay() {
            Stay::UntilRead => false,
            Stay::Empty => self.empty >= EMPTY_AFTER,
            Stay::Lacks => self.missed >= looks,
        };
        if is_over {
            self.missing.clear();
        }
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        self.files.retain(|_, file| !file.is_gone || file.has_lost_any());
    }

    /// What is to be told since the last call; no facts if nothing changed.
    pub fn news(&mut self) -> News {
        let mut now: BTreeMap<&Subject, (&str, &Content)> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for (file, File { entries, .. }) in &self.files {
            for (subject, content) in entries {
                match now.get(subject) {
                    None => {
                        now.insert(subject, (file, content));
                    }
                    Some((taken, _)) => duplicates.push(Duplicate {
                        subject: subject.clone(),
                        taken: (*taken).to_owned(),
                        ignored: file.clone(),
                    }),
                }
            }
        }
        for (file, File { cut, .. }) in &self.files {
            if let Some((subject, Lost { content, .. })) = cut
                && now.get(subject).is_some_and(|(describes, _)| *describes == file.as_str())
            {
                now.insert(subject, (file, content));
            }
        }
        // An object that went from one file to another is not lost.
        for (file, File { lost, .. }) in &self.files {
            for (subject, Lost { content, .. }) in lost {
                if is_lost(content, now.get(subject).map(|(_, now)| *now)) {
                    now.insert(subject, (file, content));
                }
            }
        }
        self.missing.retain(|subject, content| is_lost(content, now.get(subject).map(|(_, now)| *now)));
        now.extend(self.missing.iter().map(|(subject, content)| (subject, ("", content))));
        let mut changed: BTreeMap<&Subject, Option<&Content>> = BTreeMap::new();
        for (subject, (_, content)) in &now {
            if self.told.get(*subject) != Some(*content) {
                changed.insert(subject, Some(content));
            }
        }
        changed.extend(self.told.keys().filter(|subject| !now.contains_key(subject)).map(|subject| (subject, None)));
        let fact = |(subject, content): (&Subject, Option<&Content>)| match content {
            Some(content) => subject.says(content),
            None => Some(subject.clone().gone()),
        };
        let mut facts: Vec<Fact> = changed.into_iter().filter_map(fact).collect();
        let complete = self.never_read.is_empty();
        if complete && (!facts.is_empty() || !self.complete) {
            facts.extend(listings(now.keys().copied()));
        }
        self.complete = complete;
        self.told = now.into_iter().map(|(subject, (_, content))| (subject.clone(), content.clone())).collect();
        News { facts, duplicates }
    }
}

/// The Facts that these are all objects, one for each kind.
fn listings<'a>(subjects: impl Iterator<Item = &'a Subject>) -> [Fact; 5] {
    let (mut namespaces, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    let (mut services, mut slices, mut pods) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for subject in subjects {
        match subject {
            Subject::Namespace(key) => drop(namespaces.insert(key.clone())),
            Subject::Node(key) => drop(nodes.insert(key.clone())),
            Subject::Service(key) => drop(services.insert(key.clone())),
            Subject::EndpointSlice(key) => drop(slices.insert(key.clone())),
            Subject::Pod(key) => drop(pods.insert(key.clone())),
        }
    }
    [
        // First: by the last of the others all is known.
        Fact::Listed(Listing::Pods(pods)),
        Fact::Listed(Listing::Namespaces(namespaces)),
        Fact::Listed(Listing::Nodes(nodes)),
        Fact::Listed(Listing::Services(services)),
        Fact::Listed(Listing::EndpointSlices(slices)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::document::{Format, read};

    /// Services by name, each with a port to tell it by.
    fn services(services: &[(&str, u16)]) -> Vec<Entry> {
        let text: String = services
            .iter()
            .map(|(name, port)| {
                format!("---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: {port}}}]}}}}\n")
            })
            .collect();
        read(&text, Format::Yaml).expect("sound manifests").entries
    }

    /// News in few words: `web:80`, `-web`, and `all` for the four lists.
    fn told(scene: &mut Scene) -> Vec<String> {
        let mut words = Vec::new();
        for fact in scene.news().facts {
            match fact {
                Fact::Service(key, Some(service)) => words.push(format!("{}:{}", key.name, service.ports[0].port)),
                Fact::Service(key, None) => words.push(format!("-{}", key.name)),
                Fact::Listed(Listing::EndpointSlices(_)) => words.push("all".to_owned()),
                Fact::Listed(_) => {}
                other => panic!("{other:?}"),
            }
        }
        words
    }

    #[test]
    fn the_same_files_are_told_in_the_same_order() {
        let mut one = Scene::default();
        one.take("a.yaml", services(&[("web", 80), ("api", 81)]), Extent::default());
        one.take("b.yaml", services(&[("dns", 53)]), Extent::default());
        let mut other = Scene::default();
        other.take("b.yaml", services(&[("dns", 53)]), Extent::default());
        other.take("a.yaml", services(&[("api", 81), ("web", 80)]), Extent::default());
        let news = told(&mut one);
        assert_eq!(news, ["api:81", "dns:53", "web:80", "all"]);
        assert_eq!(news, told(&mut other));
    }

    #[test]
    fn an_empty_folder_is_complete_at_once() {
        assert_eq!(told(&mut Scene::default()), ["all"]);
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80), ("api", 81)]), Extent::default());
        told(&mut scene);
        assert_eq!(told(&mut scene), [""; 0], "nothing happened");
        scene.take("a.yaml", services(&[("web", 80), ("api", 82)]), Extent::default());
        assert_eq!(told(&mut scene), ["api:82", "all"]);
        scene.take("a.yaml", services(&[("web", 80)]), Extent::default());
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["-api", "all"]);
        scene.drop_file("a.yaml");
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["-web", "all"]);
    }

    #[test]
    fn what_a_file_lost_stays_until_it_is_let_go() {
        let mut scene = Scene::default();
        assert!(!scene.take("a.yaml", services(&[("web", 80), ("api", 81)]), Extent::default()));
        told(&mut scene);
        assert!(scene.take("a.yaml", services(&[("web", 80)]), Extent::default()), "api");
        scene.count_look();
        assert!(scene.drop_file("a.yaml"), "web");
        scene.let_go(2);
        assert_eq!(told(&mut scene), [""; 0]);
        scene.let_go(1);
        assert_eq!(told(&mut scene), ["-api", "all"], "what is lost for longer");
        assert!(!scene.take("a.yaml", services(&[("web", 80)]), Extent::default()));
        scene.let_go(0);
        assert_eq!(told(&mut scene), [""; 0], "web is described again");
    }

    #[test]
    fn an_object_that_goes_to_another_file_is_not_lost() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80)]), Extent::default());
        told(&mut scene);
        scene.drop_file("a.yaml");
        scene.take("b.yaml", services(&[("web", 81)]), Extent::default());
        let News { facts, duplicates } = scene.news();
        assert!(matches!(&facts[0], Fact::Service(_, Some(service)) if service.ports[0].port == 81), "{facts:?}");
        assert_eq!(duplicates, []);
        scene.let_go(0);
        assert_eq!(told(&mut scene), [""; 0]);
    }

    #[test]
    fn what_was_lost_of_a_file_that_breaks_stays_for_good() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80), ("api", 81), ("dns", 53)]), Extent::default());
        scene.take("b.yaml", Vec::new(), Extent::default());
        told(&mut scene);
        scene.take("a.yaml", services(&[("web", 82), ("dns", 53)]), Extent::default());
        scene.spoil("a.yaml");
        scene.spoil("b.yaml");
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["web:82", "all"], "a file that was empty was read, so all is complete");
        scene.drop_file("a.yaml");
        scene.spoil("a.yaml");
        scene.let_go(0);
        assert_eq!(told(&mut scene), [""; 0], "gone for a moment, and there again");
    }

    #[test]
    fn a_service_that_is_no_load_balancer_any_more_is_lost() {
        let typed = |kind: &str, port: u16| {
            let spec = format!("{{type: {kind}, ports: [{{port: {port}}}]}}");
            let text = format!("{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {spec}}}");
            read(&text, Format::Yaml).expect("a sound manifest").entries
        };
        let mut scene = Scene::default();
        assert!(!scene.take("a.yaml", typed("ClusterIP", 80), Extent::default()));
        assert!(!scene.take("a.yaml", typed("LoadBalancer", 81), Extent::default()));
        assert_eq!(told(&mut scene), ["web:81", "all"]);
        assert!(scene.take("a.yaml", typed("ClusterIP", 82), Extent::default()));
        assert_eq!(told(&mut scene), [""; 0]);
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["web:82", "all"]);
        assert!(!scene.take("a.yaml", typed("ClusterIP", 83), Extent::default()));
        assert_eq!(told(&mut scene), ["web:83", "all"], "nothing was lost by that");
    }

    #[test]
    fn a_file_that_breaks_keeps_its_word() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80)]), Extent::default());
        told(&mut scene);
        scene.spoil("a.yaml");
        assert_eq!(told(&mut scene), [""; 0]);
        scene.take("b.yaml", services(&[("api", 81)]), Extent::default());
        assert_eq!(told(&mut scene), ["api:81", "all"], "its objects are in the list still");
    }

    #[test]
    fn nothing_is_complete_before_each_file_was_read_once() {
        let mut scene = Scene::default();
        scene.spoil("a.yaml");
        scene.take("b.yaml", services(&[("api", 81), ("dns", 53)]), Extent::default());
        assert_eq!(told(&mut scene), ["api:81", "dns:53"], "what the last run knew of a.yaml may stand");
        scene.take("b.yaml", services(&[("api", 81)]), Extent::default());
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["-dns"], "what is surely gone is told");
        scene.take("a.yaml", services(&[("web", 80)]), Extent::default());
        assert_eq!(told(&mut scene), ["web:80", "all"]);

        scene.spoil("c.yaml");
        assert_eq!(told(&mut scene), [""; 0]);
        scene.drop_file("c.yaml");
        assert_eq!(told(&mut scene), ["all"], "complete again, so it is said again");
    }

    #[test]
    fn of_two_descriptions_the_first_file_by_name_counts() {
        let mut scene = Scene::default();
        scene.take("b.yaml", services(&[("web", 81)]), Extent::default());
        scene.take("a.yaml", services(&[("web", 80), ("web", 82)]), Extent::default());
        let news = scene.news();
        let lost: Vec<_> = news.duplicates.iter().map(|one| (one.taken.as_str(), one.ignored.as_str())).collect();
        assert_eq!(lost, [("a.yaml", "a.yaml"), ("a.yaml", "b.yaml")]);
        assert!(matches!(&news.facts[0], Fact::Service(_, Some(service)) if service.ports[0].port == 80));
        scene.drop_file("a.yaml");
        assert_eq!(told(&mut scene), ["web:81", "all"], "the second steps in");
    }

    /// Services as Facts of a World of before.
    fn before(known: &[(&str, u16)]) -> Vec<Fact> {
        services(known).into_iter().filter_map(|(subject, content)| subject.says(&content)).collect()
    }

    #[test]
    fn what_was_known_before_the_start_is_lost_only_when_the_folder_has_lacked_it_for_a_while() {
        let mut scene = Scene::default();
        scene.remember(before(&[("web", 80), ("api", 81), ("dns", 53)]));
        scene.take("a.yaml", services(&[("api", 82), ("dns", 53)]), Extent::default());
        scene.let_go(5);
        assert_eq!(told(&mut scene), ["api:82", "all"], "the lists name web too, so nothing else is told");
        assert_eq!(scene.missing().map(ToString::to_string).collect::<Vec<_>>(), ["Service default/web"]);
        (0..4).for_each(|_| scene.count_look());
        scene.let_go(5);
        assert_eq!(told(&mut scene), [""; 0]);
        assert!(scene.has_lost_any());
        scene.count_look();
        scene.let_go(5);
        assert_eq!(told(&mut scene), ["-web", "all"]);
        assert!(!scene.has_lost_any());
    }

    #[test]
    fn what_was_known_before_the_start_stays_for_longer_in_an_empty_folder_and_for_good_beside_a_file_that_was_never_read()
     {
        let mut scene = Scene::default();
        scene.remember(before(&[("web", 80)]));
        scene.spoil("b.yaml");
        let look = |scene: &mut Scene, looks: u32| {
            (0..looks).for_each(|_| scene.count_look());
            scene.let_go(0);
            told(scene)
        };
        assert_eq!(look(&mut scene, 1000), [""; 0]);
        assert_eq!(scene.stay(), Stay::UntilRead);
        assert!(!scene.has_lost_any(), "nothing is waited for but a change of the file");
        scene.drop_file("b.yaml");
        scene.take("a.yaml", Vec::new(), Extent::default());
        assert_eq!(look(&mut scene, EMPTY_AFTER - 1), ["all"], "an empty file is no reason to take anything away");
        assert_eq!(scene.stay(), Stay::Empty);
        assert_eq!(look(&mut scene, 1), ["-web", "all"]);
    }

    #[test]
    fn files_that_come_late_into_an_empty_folder_are_given_the_time_of_files_that_are_written() {
        let mut scene = Scene::default();
        scene.remember(before(&[("web", 80), ("api", 81)]));
        (0..EMPTY_AFTER / 2).for_each(|_| scene.count_look());
        scene.let_go(5);
        assert_eq!(told(&mut scene), ["all"]);
        scene.take("a.yaml", services(&[("api", 81)]), Extent::default());
        scene.count_look();
        scene.let_go(5);
        assert_eq!(told(&mut scene), [""; 0]);
        scene.take("a.yaml", services(&[("api", 81), ("web", 80)]), Extent::default());
        assert_eq!(told(&mut scene), [""; 0]);
        assert!(!scene.has_lost_any());
    }

    const SAME: (u64, u64) = (1, 1);

    fn long(octets: u64) -> Extent {
        Extent { inode: SAME, octets }
    }

    #[test]
    fn the_last_object_of_a_text_that_got_shorter_is_believed_when_it_has_stood() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80), ("api", 81)]), long(100));
        told(&mut scene);
        assert!(scene.take("a.yaml", services(&[("web", 70), ("api", 71)]), long(99)));
        assert_eq!(told(&mut scene), ["web:70", "all"], "only the last object can be cut off");
        scene.take("a.yaml", services(&[("web", 70), ("api", 81)]), long(100));
        assert_eq!(told(&mut scene), [""; 0], "written to the end");
        assert!(!scene.has_lost_any());
        scene.take("a.yaml", services(&[("web", 70), ("api", 72)]), long(99));
        scene.count_look();
        scene.take("a.yaml", services(&[("web", 70), ("api", 73)]), long(98));
        scene.count_look();
        scene.let_go(3);
        assert_eq!(told(&mut scene), [""; 0]);
        scene.let_go(2);
        assert_eq!(told(&mut scene), ["api:73", "all"], "it stood, or somebody writes it all the time");
        assert!(!scene.take("a.yaml", services(&[("web", 70), ("api", 74)]), long(98)));
        assert_eq!(told(&mut scene), ["api:74", "all"], "that is how long it is now");
    }

    #[test]
    fn a_whole_file_that_is_put_in_place_of_a_longer_one_is_believed_at_once() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80), ("api", 81)]), long(100));
        told(&mut scene);
        assert!(!scene.take("a.yaml", services(&[("web", 80), ("api", 71)]), Extent { inode: (1, 2), octets: 90 }));
        assert_eq!(told(&mut scene), ["api:71", "all"]);
        assert!(
            scene.take("a.yaml", services(&[("web", 72)]), Extent { inode: (1, 3), octets: 50 }),
            "but it lacks one"
        );
        assert_eq!(told(&mut scene), [""; 0]);
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["-api", "web:72", "all"]);
        scene.drop_file("a.yaml");
        scene.take("a.yaml", services(&[("web", 73)]), Extent { inode: (1, 4), octets: 40 });
        assert_eq!(told(&mut scene), [""; 0], "it was away, so somebody may write it still");
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["web:73", "all"]);
    }

    #[test]
    fn half_an_object_is_nothing_to_go_back_to() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80), ("api", 81)]), long(100));
        told(&mut scene);
        scene.take("a.yaml", services(&[("web", 80), ("api", 71)]), long(90));
        scene.take("a.yaml", services(&[("web", 80)]), long(50));
        assert_eq!(told(&mut scene), [""; 0]);
        scene.take("a.yaml", services(&[("web", 80), ("api", 71)]), long(90));
        scene.spoil("a.yaml");
        scene.let_go(0);
        assert_eq!(told(&mut scene), [""; 0], "nor where the file breaks");
    }

    #[test]
    fn at_the_start_the_last_object_of_each_file_may_be_cut_off() {
        let mut scene = Scene::default();
        scene.remember(before(&[("web", 80), ("api", 81), ("dns", 53)]));
        scene.take("a.yaml", services(&[("web", 70), ("api", 71)]), long(90));
        assert_eq!(told(&mut scene), ["web:70", "all"]);
        scene.take("a.yaml", services(&[("web", 70), ("api", 81), ("dns", 43)]), long(95));
        assert_eq!(told(&mut scene), [""; 0]);
        scene.take("a.yaml", services(&[("web", 70), ("api", 81), ("dns", 44)]), long(96));
        assert_eq!(told(&mut scene), [""; 0]);
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["dns:44", "all"]);
    }
}
