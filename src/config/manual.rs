//! The manual page crier.toml(5) in roff, written from the rows of the sections. Floor 1.
//! What this version refuses is in it too, and marked so.

use std::fmt::Write;

use super::change::Touches;
use super::key::{Default, Example, Row};
use super::section::{SECTIONS, Section};

/// The page, for `man -l` or a file `crier.toml.5`.
pub fn manual() -> String {
    let mut page = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(page, ".TH CRIER.TOML 5 \"\" \"crier {}\" \"File Formats\"", env!("CARGO_PKG_VERSION"));
    page += ".SH NAME\ncrier.toml \\- configuration of the crier agent\n";
    page += ".SH SYNOPSIS\n.I /etc/crier/crier.toml\n.br\n.I /etc/crier/conf.d/*.toml\n";
    page += ".SH DESCRIPTION\n";
    for paragraph in [
        "The agent reads the main file, then the drop-ins in conf.d beside it in order of name. A drop-in overrides keys and \
         adds to lists of tables. A configuration with a mistake is refused as a whole, and a running agent keeps the one it \
         has. A reload touches only what differs: at a key that is no matter of a reload stands what it takes. \
         `crier config check FILE` reports every mistake; `crier config show FILE` prints the configuration with all \
         defaults.",
        "The file is TOML. Durations are whole numbers with units: \"300ms\", \"30s\", \"1m30s\", \"2h\". Selectors are written \
         as for kubectl: \"rack=a, tier in (front, edge), !gpu\". A [section] may come once, a [[section]] many times.",
        "One file can serve every node of a cluster: what differs between nodes comes from selectors, from \"auto\", or from \
         a drop-in.",
    ] {
        let _ = writeln!(page, ".PP\n{}", roff(paragraph));
    }
    for section in SECTIONS.iter().filter(|section| !section.path.is_empty()) {
        write_section(&mut page, section);
    }
    page +=
        ".SH FILES\n.TP\n.I /etc/crier/crier.toml\nThe main file.\n.TP\n.I /etc/crier/conf.d/*.toml\nThe drop-ins.\n";
    page += ".SH SEE ALSO\n.BR crier (8)\n";
    page
}

fn write_section(page: &mut String, section: &Section) {
    let _ = writeln!(page, ".SH \"{}\"\n{}", roff(&section.to_string()), roff(section.summary));
    for row in section.rows {
        write_row(page, row);
    }
    if let Some(own) = &section.own_keys {
        let _ = writeln!(page, ".PP\nEach key is {}, for example:\n.IP\n{}", roff(own.what), roff(own.example));
    }
}

fn write_row(page: &mut String, row: &Row) {
    let _ = writeln!(page, ".TP\n.B {}\n{}", roff(row.key), roff(row.summary));
    if !row.trade.is_empty() {
        let _ = writeln!(page, "{}", roff(row.trade));
    }
    let default = match row.default {
        Default::Required => "Required.".to_owned(),
        Default::Unset(_)
        | Default::Flag(_)
        | Default::Number(_)
        | Default::Mask(_)
        | Default::Text(_)
        | Default::Texts(_) => format!("Default: {}.", row.default),
    };
    let _ = writeln!(page, ".br\nValue: {}. {}", roff(&row.kind.to_string()), roff(&default));
    match row.example {
        Example::Default => {}
        Example::Shown(value) | Example::Set(value) => {
            let _ = writeln!(page, ".br\nExample: {}", roff(&format!("{} = {value}", row.key)));
        }
    }
    match row.touches {
        Touches::Restart => page.push_str(".br\nA change takes a restart of the agent.\n"),
        Touches::Session => page.push_str(".br\nA change ends the session, which begins anew.\n"),
        Touches::Nothing
        | Touches::Log
        | Touches::Decisions
        | Touches::LiveSession
        | Touches::Listening
        | Touches::Pulse => {}
    }
}

/// A line of text for roff: nothing in it is a request or an escape, and a hyphen stays one.
pub fn roff(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\e"),
            '-' => line.push_str("\\-"),
            // A quote would end an argument of a request.
            '"' => line.push_str("\\(dq"),
            '\n' => line.push(' '),
            c => line.push(c),
        }
    }
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_section_and_every_key_in_its_section() {
        let page = manual();
        for section in SECTIONS.iter().filter(|section| !section.path.is_empty()) {
            let header = format!(".SH \"{}\"\n", roff(&section.to_string()));
            let text = page.split(&header).nth(1).unwrap_or_else(|| panic!("{section} is in the manual"));
            let text = text.split("\n.SH ").next().unwrap_or_default();
            for row in section.rows {
                assert!(text.contains(&format!(".B {}\n", roff(row.key))), "{section} has {}", row.key);
                assert!(text.contains(&roff(row.summary)), "{section} says what {} is", row.key);
            }
        }
    }

    #[test]
    fn no_text_of_a_key_is_taken_for_a_request_of_roff() {
        const REQUESTS: [&str; 8] = [".TH ", ".SH ", ".PP", ".TP", ".B ", ".br", ".I ", ".IP"];
        for line in manual().lines().filter(|line| line.starts_with(['.', '\''])) {
            let known = REQUESTS.iter().any(|request| line.starts_with(request)) || line == ".BR crier (8)";
            assert!(known, "{line}");
        }
        assert_eq!(roff(".\\-\""), "\\&.\\e\\-\\(dq");
    }
}
