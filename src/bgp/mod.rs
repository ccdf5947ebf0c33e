//! The BGP speaker.
pub mod agreement;
pub mod outbox;
mod packer;
pub mod wire;
