//! The sections of the configuration, one file each: the keys it has, and what they must be to each other.
//! Floor 1. A key is one row of its section: the row makes the field, its reader, its printer and its place in the texts.

pub mod advertisement;
pub mod api;
pub mod bfd;
pub mod bgp;
pub mod communities;
pub mod drain;
pub mod egress;
pub mod host;
pub mod kubernetes;
pub mod l2;
pub mod log;
pub mod manifests;
pub mod node;
pub mod peer;
pub mod pool;
pub mod preference;
pub mod pulse;
pub mod reservation;
pub mod state;
pub mod tcp_ao;
pub mod vrf;

use std::fmt;

use super::complaint::Place;
use super::key::Row;
use super::page::Page;
use super::reader::Reader;

/// Every section, the file itself first, in the order of the manual.
pub static SECTIONS: &[&Section] = &[
    &Section::one("", "The configuration file, and the drop-ins in conf.d beside it in order of name."),
    node::Node::SECTION,
    api::Api::SECTION,
    state::State::SECTION,
    kubernetes::Kubernetes::SECTION,
    manifests::Manifests::SECTION,
    pool::Pool::SECTION,
    reservation::Reservation::SECTION,
    l2::L2::SECTION,
    preference::Preference::SECTION,
    pulse::Pulse::SECTION,
    bgp::Bgp::SECTION,
    peer::Peer::SECTION,
    tcp_ao::AoKey::SECTION,
    advertisement::Advertisement::SECTION,
    communities::SECTION,
    bfd::BfdProfile::SECTION,
    vrf::Vrf::SECTION,
    vrf::VrfRoute::SECTION,
    egress::EgressSettings::SECTION,
    drain::DrainSettings::SECTION,
    host::Host::SECTION,
    log::Log::SECTION,
];

/// A TOML table, or a list of tables. The whole file is the section with the empty path.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// From the root, with dots: `bgp.peer`.
    pub path: &'static str,
    /// The section is written `[[path]]`, or as a list of inline tables, and may come many times.
    pub repeated: bool,
    pub summary: &'static str,
    pub rows: &'static [Row],
    /// Set where the keys are the operator's own, as the aliases of communities are.
    pub own_keys: Option<OwnKeys>,
}

/// Keys that no table can list, with texts as values.
#[derive(Debug, Clone, Copy)]
pub struct OwnKeys {
    /// What key and value are, in a few words.
    pub what: &'static str,
    /// One of them, in TOML.
    pub example: &'static str,
}

impl Section {
    /// The section at this path, if there is one.
    pub fn find(path: &str) -> Option<&'static Section> {
        SECTIONS.iter().copied().find(|section| section.path == path)
    }

    pub fn row(&self, key: &str) -> Option<&'static Row> {
        self.rows.iter().find(|row| row.key == key)
    }

    /// The last part of the path: the key that the section is the value of.
    pub fn key(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The section that this one stands in.
    pub fn parent(&self) -> Option<&'static Section> {
        self.path.rsplit_once('.').and_then(|(parent, _)| Section::find(parent))
    }

    /// The path of a key or section in this section.
    pub fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The keys and sections that may stand in this section.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        let parent = self.path;
        let sections = SECTIONS.iter().filter_map(move |section| {
            let (above, last) = section.path.rsplit_once('.').unwrap_or(("", section.path));
            (above == parent && !last.is_empty()).then_some(last)
        });
        self.rows.iter().map(|row| row.key).chain(sections)
    }

    const fn one(path: &'static str, summary: &'static str) -> Section {
        Section { path, repeated: false, summary, rows: &[], own_keys: None }
    }

    const fn many(path: &'static str, summary: &'static str) -> Section {
        Section { repeated: true, ..Section::one(path, summary) }
    }
}

/// The section's header as it is written in a file.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path, self.repeated) {
            ("", _) => f.write_str("the file"),
            (path, true) => write!(f, "[[{path}]]"),
            (path, false) => write!(f, "[{path}]"),
        }
    }
}

/// A section whose keys are declared by [`section!`].
pub(super) trait Described: Sized {
    const SECTION: &'static Section;

    /// Every key is read, and everything wrong is complained about. `None` only with a complaint.
    fn read(section: &mut Reader<'_>) -> Option<Self>;

    fn show(&self, page: &mut Page);
}

/// The value of a key as it was read, before the checks of its section.
#[derive(Debug)]
pub(super) struct Written<T> {
    /// `None` where the value was refused, or where the checks are to find it.
    pub value: Option<T>,
    /// Where to point: the value, or the header of the section where the key was left out.
    pub place: Place,
    /// The key was written.
    pub given: bool,
    /// The key was written with a list of nothing. A list whose items were all refused is not that.
    pub empty_list: bool,
}

/// What the keys of a section must be to each other, and to other sections.
pub(super) trait Check {
    /// Before the sections inside are read.
    fn enter(&mut self, _section: &mut Reader<'_>) {}

    /// After everything was read. A value may be put in where the key was left out.
    fn check(&mut self, _section: &mut Reader<'_>) {}
}

/// Declares a section: the struct with a field for each key, and from the same rows the table, the reader and the printer.
///
/// `written as` names the struct of the values before they are checked; it implements [`Check`]. A field in `combined`
/// stands for several keys: `join` makes it of the written values, `split` gives the values to print. A field in
/// `sections` holds the sections inside. Each row ends with what a change of the key touches in a running agent: a row that
/// does not say so does not compile.
macro_rules! section {
    (
        $(#[$doc:meta])*
        pub struct $name:ident = $section:expr, written as $written:ident;
        $( combined { $(
            $(#[$whole_doc:meta])*
            pub $whole:ident: $whole_type:ty = join $join:path, split $split:path, of {
                $( $part:ident: $part_type:ty = $part_key:expr, touches $part_touches:ident; )*
            }
        )* } )?
        keys { $( $(#[$field_doc:meta])* pub $field:ident: $type:ty = $key:expr, touches $touches:ident; )* }
        $( sections { $( $(#[$inner_doc:meta])* pub $inner:ident: Vec<$inner_type:ty>; )* } )?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($( $(#[$whole_doc])* pub $whole: $whole_type, )*)?
            $( $(#[$field_doc])* pub $field: $type, )*
            $($( $(#[$inner_doc])* pub $inner: Vec<$inner_type>, )*)?
        }

        struct $written {
            $($($( $part: $crate::config::section::Written<$part_type>, )*)*)?
            $( $field: $crate::config::section::Written<$type>, )*
            $($( $inner: $crate::config::section::Written<Vec<$inner_type>>, )*)?
        }

        impl $crate::config::section::Described for $name {
            const SECTION: &'static $crate::config::section::Section = &$crate::config::section::Section {
                rows: &[
                    $($($( $crate::config::key::row::<$part_type, _>($part_key, $crate::config::change::Touches::$part_touches), )*)*)?
                    $( $crate::config::key::row::<$type, _>($key, $crate::config::change::Touches::$touches), )*
                ],
                ..$section
            };

            fn read(section: &mut $crate::config::reader::Reader<'_>) -> Option<$name> {
                let mut written = $written {
                    $($($( $part: section.take(&$part_key), )*)*)?
                    $( $field: section.take(&$key), )*
                    $($( $inner: section.unread(<$inner_type as $crate::config::section::Described>::SECTION), )*)?
                };
                $crate::config::section::Check::enter(&mut written, section);
                $($( written.$inner.value = Some(section.many()); )*)?
                $crate::config::section::Check::check(&mut written, section);
                $($( let $whole = $join(&written, section); )*)?
                Some($name {
                    $($( $whole: $whole?, )*)?
                    $( $field: written.$field.value?, )*
                    $($( $inner: written.$inner.value?, )*)?
                })
            }

            fn show(&self, page: &mut $crate::config::page::Page) {
                $($(
                    let ($( $part, )*) = $split(&self.$whole);
                    $( page.key(&$part_key, &$part); )*
                )*)?
                $( page.key(&$key, &self.$field); )*
                $($( page.sections(&self.$inner); )*)?
            }
        }
    };
}

use section;
