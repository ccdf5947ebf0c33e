//! The decisions. Floor 1.
pub mod slice;
