//! Who may change the table, and what the second guard beside it is called. Floor 1.

use super::Form;

/// Who may change the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The socket that makes it alone, so `nft flush ruleset` passes it over; when the socket is closed the table stays
    /// and belongs to nobody. Linux 6.9 or later.
    Socket,
    /// The socket that makes it alone, and the table goes with the socket. Linux 5.12 or later. Of such a table only the chains that hold
    /// packets back hook in: it is the second guard beside a table that anybody may change.
    Life,
    /// Anybody.
    None,
}

/// What the second guard beside the table is called.
pub fn second(form: &Form) -> Form {
    Form { table: format!("{}-guard", form.table), ..form.clone() }
}
