//! A secret: octets that nothing prints. Floor 0.
//! Where it comes from is `config::secrets`; who needs the octets asks for them by a word that is easy to search for.

use std::fmt;
use std::sync::Arc;

/// A key or password. Cheap to clone: the octets are shared. `Debug` and `Display` show neither the octets nor their number.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The octets, for the one who hands them to the kernel or computes with them. Never for a text.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Secret {
        Secret(octets.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_printing_shows_a_secret_or_how_long_it_is() {
        let (long, short) = (Secret::from(&b"hunter2-hunter2"[..]), Secret::from(&b"x"[..]));
        for printed in [format!("{long}"), format!("{long:?}"), format!("{long:#?}"), format!("{:?}", Some(&long))] {
            assert!(!printed.contains("hunter2") && !printed.contains("104"), "{printed}");
        }
        assert_eq!(format!("{long} {long:?}"), format!("{short} {short:?}"));
        assert_ne!(long, short);
        assert_eq!(long.expose(), b"hunter2-hunter2");
    }
}
