//! Columns of text, as kubectl prints them. Floor 4.

/// Left-aligned columns, two spaces apart, no space at the end of a line.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Table {
        Table { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    /// For a table whose columns depend on what was asked for.
    pub fn with_head(head: Vec<&str>) -> Table {
        Table { rows: vec![head.into_iter().map(str::to_owned).collect()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.to_vec());
    }

    /// A row of as many cells as the head has.
    pub fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| shortened(printable(cell))).collect());
    }
}

/// What a cell shows where there is nothing.
pub fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Text on one line and without anything that a terminal would obey, or that would make it look like another text: some of it
/// comes from peers and other hosts.
pub fn printable(text: &str) -> String {
    let escape = |c: char| if is_obeyed(c) { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Control characters, separators of lines, and what turns the direction of writing (Unicode's bidirectional formatting).
fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// A cell that is longer helps nobody to read the table; JSON has all of it.
const WIDEST: usize = 1000;

fn shortened(cell: String) -> String {
    match cell.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &cell[..end]),
        None => cell,
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |column| cells(column).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_another_host_in_a_cell_cannot_talk_to_the_terminal() {
        let mut table = Table::new(["ERROR"]);
        table.row(["bye\n\u{1b}[2Jä\u{202e}\u{2028}".to_owned()]);
        assert_eq!(table.to_string(), "ERROR\nbye\\n\\u{1b}[2Jä\\u{202e}\\u{2028}\n");
    }

    #[test]
    fn a_cell_of_a_megabyte_is_cut_and_printed() {
        let mut table = Table::new(["NAME", "WHAT"]);
        table.row(["x".repeat(1 << 20), "ä".repeat(1 << 20)]);
        let text = table.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 2 * (WIDEST + 1) + 2), "{}", text.len());
        assert!(text.ends_with("ä…\n"));
    }

    #[test]
    fn columns_line_up_and_lines_end_with_a_letter() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["a-long-name".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME         STATE\na-long-name\n");
    }
}
