//! The BGP speaker.
pub mod agreement;
pub mod collision;
pub mod session;
pub mod wire;
