//! What the kernel has dropped of TCP segments for their signature: it tells nobody but its counters, and not whose they were. Floor 2.

use std::fs;

use super::Protection;

/// Counted since the network namespace was made, for all its connections together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Without a TCP MD5 signature, or with a wrong one, where one was due.
    md5: u64,
    /// With a TCP MD5 signature where none was due.
    unexpected: u64,
    /// Without TCP-AO where it was due, with a wrong one, or with a key that is not known.
    ao: u64,
}

impl Refusals {
    /// All of them up to now; zero where the kernel does not count.
    pub fn read() -> Refusals {
        // Of this thread: the network namespace is a matter of threads.
        Refusals::parse(&fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default())
    }

    /// `/proc/net/netstat` has two lines for each group: the names, and below them the numbers.
    fn parse(text: &str) -> Refusals {
        let mut refusals = Refusals::default();
        let mut lines = text.lines();
        while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
            for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()) {
                let sum = match name {
                    "TCPMD5NotFound" | "TCPMD5Failure" => &mut refusals.md5,
                    "TCPMD5Unexpected" => &mut refusals.unexpected,
                    "TCPAORequired" | "TCPAOBad" | "TCPAOKeyNotFound" => &mut refusals.ao,
                    _ => continue,
                };
                *sum = sum.saturating_add(number.parse().unwrap_or(0));
            }
        }
        refusals
    }

    /// Those that may be of a peer with this protection, since `before`.
    pub fn since(self, before: Refusals, protection: &Protection) -> u64 {
        let count = |of: fn(&Refusals) -> u64| of(&self).saturating_sub(of(&before));
        match protection {
            Protection::None => count(|it| it.unexpected),
            Protection::Md5(_) => count(|it| it.md5),
            Protection::Ao(_) => count(|it| it.ao),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    /// As Linux 6.18 writes it, cut.
    const NETSTAT: &str = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPAORequired TCPAOBad TCPAOKeyNotFound TCPAOGood\n\
                           TcpExt: 9 1 20 300 1 2 4 7000\n\
                           IpExt: InNoRoutes InTruncatedPkts\nIpExt: 5 6\n";

    #[test]
    fn a_peer_is_told_what_is_of_its_kind_of_signature_alone() {
        let seen = Refusals::parse(NETSTAT);
        let password = Protection::Md5(Secret::from("x".as_bytes()));
        let before = Refusals { md5: 300, unexpected: 20, ao: 0 };
        let since = |protection| seen.since(before, &protection);
        assert_eq!([since(password), since(Protection::None), since(Protection::Ao(Vec::new()))], [1, 0, 7]);
    }

    #[test]
    fn what_a_kernel_does_not_count_is_none() {
        for text in
            ["", "TcpExt: TCPMD5Failure", "TcpExt: TCPMD5Failure\nTcpExt:", "TcpExt: TCPMD5Failure\nTcpExt: -1\n"]
        {
            assert_eq!(Refusals::parse(text), Refusals::default(), "{text}");
        }
    }
}
