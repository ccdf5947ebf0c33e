//! The Internet checksum (RFC 1071) over a message with the pseudo-header of its addresses. Floor 0.

use std::net::IpAddr;

/// Zero over a message that holds its right checksum, and the right checksum over one that holds zero there. `protocol` is that of
/// the message (RFC 8200 §8.1, RFC 9293 §3.1). Addresses of both families give one that is right for neither.
pub fn checksum(sender: IpAddr, receiver: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    // A packet holds at most 2^15 words of 16 bits, so the sum of all fits 32 bits.
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut sum = of_address(sender) + of_address(receiver) + words(message) + length + u32::from(protocol);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // After the loop it is a number of 16 bits.
    !u16::try_from(sum).unwrap_or_default()
}

fn of_address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => words(&v4.octets()),
        IpAddr::V6(v6) => words(&v6.octets()),
    }
}

fn words(octets: &[u8]) -> u32 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(u16::from_be_bytes([high, 0])),
        _ => 0,
    };
    octets.chunks(2).map(word).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of UDP and three octets between two addresses, worked out by hand: an odd octet counts as the high one.
    #[test]
    fn a_message_with_its_checksum_sums_to_zero_in_both_families() {
        let message = [0x30, 0x39, 0x00, 0x35, 0x00, 0x0b, 0x00, 0x00, b'a', b'b', b'c'];
        for (sender, receiver) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let (sender, receiver) = (sender.parse().unwrap(), receiver.parse().unwrap());
            let sum = checksum(sender, receiver, 17, &message);
            let mut whole = message;
            whole[6..8].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(checksum(sender, receiver, 17, &whole), 0);
            whole[10] ^= 1;
            assert_ne!(checksum(sender, receiver, 17, &whole), 0, "one bit is another");
        }
        let v4 = checksum([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, &message);
        // c000+0201 + c000+0202 + 3039+0035+000b+6162+6300 + 000b + 0011 = 2_78fa, which is 78fc with its carry.
        assert_eq!(v4, !0x78fc);
    }
}
