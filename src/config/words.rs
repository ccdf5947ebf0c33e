//! Enumerations whose values are words of the configuration: each is listed once, with its words. Floor 1.

use super::complaint::Problem;

/// A value that is written as one of a few words.
pub(super) trait Word: Copy + 'static {
    /// Every word, in the order that the manual lists them.
    const NAMES: &'static [&'static str];

    /// As the configuration writes it.
    fn name(self) -> &'static str;

    /// The value of a word, or what words there are.
    fn parse(text: &str) -> Result<Self, Problem>;
}

/// Declares an enumeration, what one of its words is called, and the word of each value.
macro_rules! words {
    (
        $(#[$doc:meta])*
        pub enum $name:ident($what:literal) { $( $(#[$value_doc:meta])* $value:ident = $word:literal, )* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[$value_doc])* $value, )* }

        impl $name {
            /// As the configuration writes it.
            pub fn name(self) -> &'static str {
                match self { $( $name::$value => $word, )* }
            }
        }

        impl $crate::config::words::Word for $name {
            const NAMES: &'static [&'static str] = &[$($word),*];

            fn name(self) -> &'static str {
                $name::name(self)
            }

            fn parse(text: &str) -> Result<Self, $crate::config::complaint::Problem> {
                match text {
                    $( $word => Ok($name::$value), )*
                    _ => Err($crate::config::syntax::no_such_word($what, text, Self::NAMES)),
                }
            }
        }
    };
}

pub(super) use words;
