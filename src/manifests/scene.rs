//! What all files of a folder say together, and which part of it is news. Floor 1.
//!
//! Tell it what became of each file ([`Scene::take`], [`Scene::spoil`], [`Scene::drop_file`]), then ask [`Scene::news`]. What a
//! file lost stays until [`Scene::let_go`].

use std::collections::{BTreeMap, BTreeSet};

use crate::manifests::document::{Content, Entry, Subject};
use crate::world::{Fact, Listing};

/// The files and what was told of them.
#[derive(Default)]
pub struct Scene {
    files: BTreeMap<String, File>,
    /// Files that could never be read. What they say is unknown, so no list may be called complete.
    never_read: BTreeSet<String>,
    told: BTreeMap<Subject, Content>,
    /// Whether the World was last told that the lists are complete.
    complete: bool,
}

#[derive(Default)]
struct File {
    entries: Vec<Entry>,
    /// What it said before and does not say now.
    lost: BTreeMap<Subject, Lost>,
    /// There is no such file any more; it is kept for what is lost.
    is_gone: bool,
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
    /// It says this now. Whether anything is lost by that which was not lost before.
    fn say(&mut self, entries: Vec<Entry>) -> bool {
        let former = std::mem::replace(&mut self.entries, entries);
        let mut now: BTreeMap<&Subject, &Content> = BTreeMap::new();
        for (subject, content) in &self.entries {
            now.entry(subject).or_insert(content);
        }
        self.lost.retain(|subject, lost| is_lost(&lost.content, now.get(subject).copied()));
        let lost_before = self.lost.len();
        for (subject, content) in former {
            if is_lost(&content, now.get(&subject).copied()) {
                self.lost.entry(subject).or_insert(Lost { content, looks: 0 });
            }
        }
        self.lost.len() > lost_before
    }

    /// What it said last stays, and with it what was lost before.
    fn keep(&mut self) {
        self.is_gone = false;
        let lost = std::mem::take(&mut self.lost);
        self.entries.retain(|(subject, _)| !lost.contains_key(subject));
        self.entries.extend(lost.into_iter().map(|(subject, lost)| (subject, lost.content)));
    }
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
    /// The file holds these objects now. Whether it lost any; what it lost stays for now.
    pub fn take(&mut self, file: &str, entries: Vec<Entry>) -> bool {
        self.never_read.remove(file);
        let file = self.files.entry(file.to_owned()).or_default();
        file.is_gone = false;
        file.say(entries)
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
        let lost_any = file.say(Vec::new());
        self.forget_gone();
        lost_any
    }

    /// Whether anything is lost and stays for now.
    pub fn has_lost_any(&self) -> bool {
        self.files.values().any(|file| !file.lost.is_empty())
    }

    /// The folder was looked at once more.
    pub fn count_look(&mut self) {
        self.files.values_mut().flat_map(|file| file.lost.values_mut()).for_each(|lost| lost.looks += 1);
    }

    /// What is lost for at least so many looks is gone.
    pub fn let_go(&mut self, looks: u32) {
        self.files.values_mut().for_each(|file| file.lost.retain(|_, lost| lost.looks < looks));
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        self.files.retain(|_, file| !file.is_gone || !file.lost.is_empty());
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
        // An object that went from one file to another is not lost.
        for (file, File { lost, .. }) in &self.files {
            for (subject, Lost { content, .. }) in lost {
                if is_lost(content, now.get(subject).map(|(_, now)| *now)) {
                    now.insert(subject, (file, content));
                }
            }
        }
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
        one.take("a.yaml", services(&[("web", 80), ("api", 81)]));
        one.take("b.yaml", services(&[("dns", 53)]));
        let mut other = Scene::default();
        other.take("b.yaml", services(&[("dns", 53)]));
        other.take("a.yaml", services(&[("api", 81), ("web", 80)]));
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
        scene.take("a.yaml", services(&[("web", 80), ("api", 81)]));
        told(&mut scene);
        assert_eq!(told(&mut scene), [""; 0], "nothing happened");
        scene.take("a.yaml", services(&[("web", 80), ("api", 82)]));
        assert_eq!(told(&mut scene), ["api:82", "all"]);
        scene.take("a.yaml", services(&[("web", 80)]));
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["-api", "all"]);
        scene.drop_file("a.yaml");
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["-web", "all"]);
    }

    #[test]
    fn what_a_file_lost_stays_until_it_is_let_go() {
        let mut scene = Scene::default();
        assert!(!scene.take("a.yaml", services(&[("web", 80), ("api", 81)])));
        told(&mut scene);
        assert!(scene.take("a.yaml", services(&[("web", 80)])), "api");
        scene.count_look();
        assert!(scene.drop_file("a.yaml"), "web");
        scene.let_go(2);
        assert_eq!(told(&mut scene), [""; 0]);
        scene.let_go(1);
        assert_eq!(told(&mut scene), ["-api", "all"], "what is lost for longer");
        assert!(!scene.take("a.yaml", services(&[("web", 80)])));
        scene.let_go(0);
        assert_eq!(told(&mut scene), [""; 0], "web is described again");
    }

    #[test]
    fn an_object_that_goes_to_another_file_is_not_lost() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80)]));
        told(&mut scene);
        scene.drop_file("a.yaml");
        scene.take("b.yaml", services(&[("web", 81)]));
        let News { facts, duplicates } = scene.news();
        assert!(matches!(&facts[0], Fact::Service(_, Some(service)) if service.ports[0].port == 81), "{facts:?}");
        assert_eq!(duplicates, []);
        scene.let_go(0);
        assert_eq!(told(&mut scene), [""; 0]);
    }

    #[test]
    fn what_was_lost_of_a_file_that_breaks_stays_for_good() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80), ("api", 81)]));
        scene.take("b.yaml", Vec::new());
        told(&mut scene);
        scene.take("a.yaml", services(&[("web", 82)]));
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
        assert!(!scene.take("a.yaml", typed("ClusterIP", 80)));
        assert!(!scene.take("a.yaml", typed("LoadBalancer", 81)));
        assert_eq!(told(&mut scene), ["web:81", "all"]);
        assert!(scene.take("a.yaml", typed("ClusterIP", 82)));
        assert_eq!(told(&mut scene), [""; 0]);
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["web:82", "all"]);
        assert!(!scene.take("a.yaml", typed("ClusterIP", 83)));
        assert_eq!(told(&mut scene), ["web:83", "all"], "nothing was lost by that");
    }

    #[test]
    fn a_file_that_breaks_keeps_its_word() {
        let mut scene = Scene::default();
        scene.take("a.yaml", services(&[("web", 80)]));
        told(&mut scene);
        scene.spoil("a.yaml");
        assert_eq!(told(&mut scene), [""; 0]);
        scene.take("b.yaml", services(&[("api", 81)]));
        assert_eq!(told(&mut scene), ["api:81", "all"], "its objects are in the list still");
    }

    #[test]
    fn nothing_is_complete_before_each_file_was_read_once() {
        let mut scene = Scene::default();
        scene.spoil("a.yaml");
        scene.take("b.yaml", services(&[("api", 81), ("dns", 53)]));
        assert_eq!(told(&mut scene), ["api:81", "dns:53"], "what the last run knew of a.yaml may stand");
        scene.take("b.yaml", services(&[("api", 81)]));
        scene.let_go(0);
        assert_eq!(told(&mut scene), ["-dns"], "what is surely gone is told");
        scene.take("a.yaml", services(&[("web", 80)]));
        assert_eq!(told(&mut scene), ["web:80", "all"]);

        scene.spoil("c.yaml");
        assert_eq!(told(&mut scene), [""; 0]);
        scene.drop_file("c.yaml");
        assert_eq!(told(&mut scene), ["all"], "complete again, so it is said again");
    }

    #[test]
    fn of_two_descriptions_the_first_file_by_name_counts() {
        let mut scene = Scene::default();
        scene.take("b.yaml", services(&[("web", 81)]));
        scene.take("a.yaml", services(&[("web", 80), ("web", 82)]));
        let news = scene.news();
        let lost: Vec<_> = news.duplicates.iter().map(|one| (one.taken.as_str(), one.ignored.as_str())).collect();
        assert_eq!(lost, [("a.yaml", "a.yaml"), ("a.yaml", "b.yaml")]);
        assert!(matches!(&news.facts[0], Fact::Service(_, Some(service)) if service.ports[0].port == 80));
        scene.drop_file("a.yaml");
        assert_eq!(told(&mut scene), ["web:81", "all"], "the second steps in");
    }
}
