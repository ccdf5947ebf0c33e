//! The BGP speaker.
pub mod agreement;
pub mod collision;
pub mod next_hop;
pub mod outbox;
mod packer;
mod peer;
pub mod session;
pub mod speaker;
pub mod transport;
pub mod wire;
