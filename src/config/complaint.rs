//! Complaints: what is wrong with a configuration, where, and what to write instead. Data first, text on demand.
//! Floor 1. Not for deciding what is wrong; the readers of this folder do that.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::SourceFile;

/// A part of a file: which of the files that were parsed, and the bytes in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

/// What is wrong with a text, before the place of the text in a file is known.
#[derive(Debug)]
pub(super) struct Problem {
    pub message: String,
    pub hint: Option<String>,
    /// The part of the text that is wrong; `None` for all of it.
    pub part: Option<Range<usize>>,
}

impl Problem {
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { message: message.into(), hint: Some(hint.into()), part: None }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub place: Place,
    /// What is wrong, in one line, with the name of the key and the value.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The other place that the mistake is about, and what stands there.
    pub second: Option<(Place, String)>,
}

/// A place as people count it. Lines and columns begin with 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position<'a> {
    pub path: &'a str,
    pub line: usize,
    pub column: usize,
}

/// Every mistake of a configuration, in the order of the files. Never empty. Reading the configuration changed nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Complaints {
    files: Vec<SourceFile>,
    list: Vec<Complaint>,
}

impl std::error::Error for Complaints {}

impl Complaints {
    pub(super) fn new(files: &[SourceFile], mut list: Vec<Complaint>) -> Complaints {
        list.sort_by(|a, b| a.place.cmp(&b.place));
        Complaints { files: files.to_vec(), list }
    }

    /// The first complaint in one line, with its place.
    pub fn first_line(&self) -> String {
        let first = self.list.first().map(|it| {
            let Position { path, line, column: _ } = self.position(&it.place);
            format!("{path}:{line}: {}", it.message)
        });
        first.unwrap_or_else(|| self.summary())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.list.iter()
    }

    /// Where a place is, in the words of an editor.
    pub fn position(&self, place: &Place) -> Position<'_> {
        let Some(file) = self.files.get(place.file) else {
            return Position { path: "", line: 1, column: 1 };
        };
        let before = &file.text[..boundary(&file.text, place.start)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            path: &file.path,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// All complaints with the lines that they are about, and a last line that counts them. Ends with a newline.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for complaint in &self.list {
            text += &renderer.render(&[self.report(complaint)]);
            text += "\n\n";
        }
        text += &renderer.render(&[Group::with_title(Level::ERROR.primary_title(self.summary()))]);
        text.push('\n');
        text
    }

    /// `3 mistakes in crier.toml; nothing was changed`
    pub fn summary(&self) -> String {
        let path =
            |complaint: &Complaint| self.files.get(complaint.place.file).map_or("the configuration", |f| &f.path);
        let mut paths: Vec<&str> = self.list.iter().map(path).collect();
        paths.dedup();
        let count = match self.list.len() {
            1 => "1 mistake".to_owned(),
            many => format!("{many} mistakes"),
        };
        format!("{count} in {}; nothing was changed", paths.join(" and "))
    }

    fn report<'a>(&'a self, complaint: &'a Complaint) -> Group<'a> {
        let primary = (&complaint.place, None);
        let second = complaint.second.as_ref().map(|(place, label)| (place, Some(label.as_str())));
        let group = Group::with_title(Level::ERROR.primary_title(&complaint.message));
        let group = match second {
            Some(second) if second.0.file == complaint.place.file => group.element(self.snippet(&[primary, second])),
            Some(second) => group.element(self.snippet(&[primary])).element(self.snippet(&[second])),
            None => group.element(self.snippet(&[primary])),
        };
        match &complaint.hint {
            Some(hint) => group.element(Level::HELP.message(hint)),
            None => group,
        }
    }

    /// The lines that hold the places, all of one file. A place with a label is the second one of a complaint.
    fn snippet<'a>(
        &'a self,
        places: &[(&'a Place, Option<&'a str>)],
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let file = places.first().and_then(|(place, _)| self.files.get(place.file));
        let (path, text) = file.map_or(("", ""), |file| (file.path.as_str(), file.text.as_str()));
        let spans = || places.iter().map(|(place, _)| within(text, place));
        // The renderer gets only these lines, so a long file with many mistakes is not read once for each mistake.
        let first = spans().map(|span| span.start).min().unwrap_or(0);
        let last = spans().map(|span| span.end).max().unwrap_or(0);
        let start = text[..first].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[last..].find('\n').map_or(text.len(), |newline| last + newline);
        let line = text[..start].matches('\n').count() + 1;
        let annotations = places.iter().zip(spans()).map(|((_, label), span)| {
            let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
            kind.span(span.start - start..span.end - start).label(*label)
        });
        Snippet::source(&text[start..end]).line_start(line).path(path).annotations(annotations)
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// The bytes of the place, moved to character boundaries and into the text whatever the place says.
fn within(text: &str, place: &Place) -> Range<usize> {
    let start = boundary(text, place.start);
    start..boundary(text, place.end).max(start)
}

fn boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|&offset| text.is_char_boundary(offset)).unwrap_or(0)
}
