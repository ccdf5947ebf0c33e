//! The BGP speaker.
pub mod agreement;
pub mod collision;
pub mod outbox;
mod packer;
pub mod session;
pub mod wire;
