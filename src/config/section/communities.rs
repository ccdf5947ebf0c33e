//! `[bgp.communities]`: names for communities. Floor 1. The names are the operator's own, so there is no row for each.

use std::collections::BTreeMap;

use super::{OwnKeys, Section};
use crate::community::{Community, WELL_KNOWN};
use crate::config::complaint::Problem;
use crate::config::document::Data;
use crate::config::reader::Reader;
use crate::config::seen::Seen;
use crate::config::shape::written;
use crate::config::syntax;

pub(super) const SECTION: &Section = &Section {
    own_keys: Some(OwnKeys { what: "a name with the community it stands for", example: "blue = \"64512:200\"" }),
    ..Section::one("bgp.communities", "Names for communities, for use in advertisements.")
};

/// Reads the aliases that stand in `[bgp]`. One that reads as a community itself would hide that community.
pub(super) fn aliases(bgp: &mut Reader<'_>) -> BTreeMap<String, Community> {
    let mut aliases = BTreeMap::new();
    let Some(Data::Table(table)) = bgp.given(SECTION.key()).map(|entry| &entry.value.data) else { return aliases };
    for (alias, entry) in &table.entries {
        if alias.parse::<Community>().is_ok() || alias.contains(':') || alias.is_empty() {
            let message = format!("{} cannot be an alias", written(alias));
            let hint = "use a name without : that is not a well-known community";
            bgp.complain(&entry.key, message, hint);
        }
        let Data::Text(text) = &entry.value.data else { continue };
        match text.text.parse::<Community>() {
            Ok(community) => {
                aliases.insert(alias.clone(), community);
            }
            Err(error) => {
                let hint = "the value of an alias is a community, not another alias";
                bgp.complain(&entry.value.place, error.to_string(), hint);
            }
        }
    }
    aliases
}

/// A community, a well-known name or an alias.
pub(super) fn community(text: &str, seen: &Seen) -> Result<Community, Problem> {
    if let Some(community) = seen.aliases.get(text) {
        return Ok(*community);
    }
    text.parse().map_err(|_| match text.contains(':') {
        true => Problem::new(
            format!("{} is not a community", written(text)),
            "write 64512:100 with numbers up to 65535, large:64512:1:2 with numbers up to 4294967295, rt:64512:100, \
             ro:64512:100, or ext:0x and 16 hexadecimal digits",
        ),
        false => {
            let aliases = seen.aliases.keys().map(String::as_str);
            let known: Vec<&str> = aliases.chain(WELL_KNOWN.map(|(name, _)| name)).collect();
            let message = format!("{} is neither a community nor an alias", written(text));
            Problem::new(message, syntax::suggestion(text, &known, "alias"))
        }
    })
}
