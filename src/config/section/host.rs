//! `[host]`: what crier may change on this host. Floor 1.

use super::{Check, Section, section};
use crate::config::key::flag;

section! {
    /// `[host]`
    pub struct Host = Section::one("host", "What crier may change on this host."), written as Written;
    keys {
        /// Set the sysctls that announcing on the link and egress need, instead of only saying so.
        pub manage_sysctls: bool = flag("manage-sysctls", false, "Set the sysctls that announcing and egress need.")
            .trade("With false, crier only checks them. Sysctls that crier set stay set when it stops. The systemd unit must \
                 have ProtectKernelTunables=no."), touches Restart;
        /// Plain ARP requests are answered by a small program in the kernel, where it takes one.
        pub arp_offload: bool = flag("arp-offload", true, "Answer plain ARP requests in the kernel, by a small BPF program.")
            .trade("Needs Linux 6.6 and CAP_BPF; without them, or with false, the agent answers each request itself."), touches Restart;
    }
}

impl Check for Written {}
