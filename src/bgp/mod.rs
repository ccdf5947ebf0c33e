//! The BGP speaker.
pub mod agreement;
pub mod wire;
