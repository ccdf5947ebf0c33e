//! nftables over netlink, as far as it takes to ask the kernel whether a table or chain is there.
//! Floor 1. Octets only; the kernel's side is `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h`.
//!
//! A question is one message; the kernel answers it with the object, or with the error ENOENT.

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFamily {
    Ipv4,
    Ipv6,
}

/// Whether the kernel has this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    Table {
        family: TableFamily,
        name: &'a str,
    },
    Chain {
        family: TableFamily,
        table: &'a str,
        name: &'a str,
    },
    /// All rules of a chain: see [`Jumps`].
    Rules {
        family: TableFamily,
        table: &'a str,
        chain: &'a str,
    },
}

/// Whether some rule of a chain sends packets to another chain, as the kernel lists the rules.
#[derive(Debug, Default)]
pub struct Jumps {
    /// One does.
    pub found: bool,
    /// The chain has a rule, whatever it does.
    pub has_rules: bool,
    /// All of them were listed; with what the kernel refused, if it did.
    pub ended: Option<Result<(), i32>>,
    /// They were changed meanwhile, so some may be left out.
    pub interrupted: bool,
}

impl Jumps {
    /// Takes a part of the answer to the question of this sequence number.
    pub fn take(&mut self, octets: &[u8], sequence: u32, target: &str) {
        let verdict = verdict_chain(target);
        let mut rest = octets;
        while let Some((header, body)) = rest.split_at_checked(HEADER) {
            let word = |at: usize| header.get(at..at + 4).and_then(|it| it.try_into().ok()).map(u32::from_ne_bytes);
            let half = |at: usize| header.get(at..at + 2).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
            let Some(length) = word(0).and_then(|it| usize::try_from(it).ok()).filter(|it| *it >= HEADER) else {
                return;
            };
            let Some(body) = body.get(..length - HEADER) else { return };
            if word(8) == Some(sequence) {
                self.interrupted |= half(6).is_some_and(|flags| flags & INTERRUPTED != 0);
                match half(4) {
                    Some(NEW_RULE) => {
                        self.has_rules = true;
                        self.found |= body.windows(verdict.len()).any(|it| it == verdict);
                    }
                    Some(DONE) => self.ended = Some(Ok(())),
                    Some(ERROR) => {
                        let code = body.get(..4).and_then(|it| it.try_into().ok()).map(i32::from_ne_bytes);
                        self.ended = Some(Err(code.and_then(i32::checked_neg).unwrap_or_default()));
                    }
                    Some(_) | None => {}
                }
            }
            let Some(next) = rest.get(length.next_multiple_of(4)..) else { return };
            rest = next;
        }
    }
}

/// The attribute by which the verdict of a rule names a chain.
fn verdict_chain(name: &str) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + name.len() + 1).unwrap_or_default();
    [&length.to_ne_bytes()[..], &VERDICT_CHAIN.to_ne_bytes(), name.as_bytes(), &[0]].concat()
}

/// What the kernel says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Present {
        /// Of a chain: how many rules are in it and lead to it.
        uses: Option<u32>,
        /// Of a chain that the kernel itself calls: what becomes of packets that no rule decides on, [`DROP`] or 1.
        policy: Option<u32>,
    },
    /// The kernel refused with this error number, ENOENT where it has no such object.
    Refused(i32),
}

/// The message type that ends every change of the rules: all that was changed together is in force by then.
pub const GENERATION: u16 = message_type(15);

const GET_TABLE: u16 = message_type(1);
const NEW_TABLE: u16 = message_type(0);
const NEW_CHAIN: u16 = message_type(3);
const GET_CHAIN: u16 = message_type(4);
const NEW_RULE: u16 = message_type(6);
const GET_RULE: u16 = message_type(7);

/// The number of nftables among the subsystems of netfilter.
const fn message_type(number: u16) -> u16 {
    (10 << 8) | number
}

impl Question<'_> {
    /// The message with this sequence number, which the answer repeats. Names of more than 255 octets are cut, and so name
    /// nothing.
    pub fn emit(&self, sequence: u32) -> Vec<u8> {
        let (kind, family, attributes) = match *self {
            Question::Table { family, name } => (GET_TABLE, family, vec![(TABLE_NAME, name)]),
            Question::Chain { family, table, name } => {
                (GET_CHAIN, family, vec![(CHAIN_TABLE, table), (CHAIN_NAME, name)])
            }
            Question::Rules { family, table, chain } => {
                (GET_RULE, family, vec![(RULE_TABLE, table), (RULE_CHAIN, chain)])
            }
        };
        let mut body = vec![family.number(), 0, 0, 0];
        for (number, text) in attributes {
            let text = &text.as_bytes()[..text.len().min(NAME)];
            // At most 260: it fits.
            let length = u16::try_from(ATTRIBUTE + text.len() + 1).unwrap_or_default();
            body.extend_from_slice(&length.to_ne_bytes());
            body.extend_from_slice(&u16::to_ne_bytes(number));
            body.extend_from_slice(text);
            body.push(0);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        // As above: below 1,000.
        let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        let list = if kind == GET_RULE { DUMP } else { 0 };
        message.extend_from_slice(&(REQUEST | list).to_ne_bytes());
        message.extend_from_slice(&sequence.to_ne_bytes());
        message.extend_from_slice(&0_u32.to_ne_bytes());
        message.extend_from_slice(&body);
        message
    }
}

impl Answer {
    /// The answer to the question of this sequence number, if the octets hold it. What cannot be read is no answer.
    pub fn parse(octets: &[u8], sequence: u32) -> Option<Answer> {
        let mut rest = octets;
        while let Some((header, body)) = rest.split_at_checked(HEADER) {
            let word = |at: usize| header.get(at..at + 4).and_then(|it| it.try_into().ok()).map(u32::from_ne_bytes);
            let length = usize::try_from(word(0)?).ok()?;
            let kind = header.get(4..6).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes)?;
            let body = body.get(..length.checked_sub(HEADER)?)?;
            if word(8)? == sequence {
                match kind {
                    NEW_TABLE => return Some(Answer::Present { uses: None, policy: None }),
                    NEW_CHAIN => {
                        let (uses, policy) = (number(body, CHAIN_USE), number(body, CHAIN_POLICY));
                        return Some(Answer::Present { uses, policy });
                    }
                    ERROR => {
                        let code = body.get(..4).and_then(|it| it.try_into().ok()).map(i32::from_ne_bytes)?;
                        return Some(Answer::Refused(code.checked_neg()?));
                    }
                    _ => {}
                }
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }
}

/// A number in the answer about a chain; `None` where the kernel does not say it.
fn number(body: &[u8], kind: u16) -> Option<u32> {
    let mut rest = body.get(FAMILY..)?;
    loop {
        let field = |at: usize| rest.get(at..at + 2).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
        let length = usize::from(field(0)?);
        let value = rest.get(ATTRIBUTE..length)?;
        if field(2)? == kind {
            // In network order, unlike the headers.
            return value.try_into().ok().map(u32::from_be_bytes);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

impl TableFamily {
    fn number(self) -> u8 {
        match self {
            TableFamily::Ipv4 => 2,
            TableFamily::Ipv6 => 10,
        }
    }
}

/// Octets of a netlink header, of what stands before the attributes, and of the header of an attribute.
const HEADER: usize = 16;
const FAMILY: usize = 4;
const ATTRIBUTE: usize = 4;

/// The most octets of a name.
const NAME: usize = 255;

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const VERDICT_CHAIN: u16 = 2;
const CHAIN_POLICY: u16 = 5;
const CHAIN_USE: u16 = 6;

/// The policy of a chain that drops what no rule accepts.
pub const DROP: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32, sequence: u32) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend_from_slice(&20_u32.to_ne_bytes());
        message.extend_from_slice(&ERROR.to_ne_bytes());
        message.extend_from_slice(&0_u16.to_ne_bytes());
        message.extend_from_slice(&sequence.to_ne_bytes());
        message.extend_from_slice(&0_u32.to_ne_bytes());
        message.extend_from_slice(&code.to_ne_bytes());
        message
    }

    #[test]
    fn a_question_is_laid_out_as_the_kernel_reads_it() {
        let chain = Question::Chain { family: TableFamily::Ipv4, table: "nat", name: "KUBE-SERVICES" };
        let message = chain.emit(7);
        assert_eq!(message.len() % 4, 0);
        assert_eq!(message[..4], u32::try_from(message.len()).unwrap().to_ne_bytes(), "its own length in front");
        assert_eq!(message[4..6], 0x0a04_u16.to_ne_bytes(), "nftables, GETCHAIN");
        assert_eq!(message[16..20], [2, 0, 0, 0], "the family of IPv4, version 0");
        assert_eq!(message[20..24], [8_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
        assert_eq!(&message[24..28], b"nat\0");
        assert_eq!(message[28..32], [18_u16.to_ne_bytes(), 3_u16.to_ne_bytes()].concat());
        assert_eq!(&message[32..48], b"KUBE-SERVICES\0\0\0", "filled up to four octets");
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let table = Question::Table { family: TableFamily::Ipv6, name: "kube-proxy" };
        let mut present = table.emit(3);
        present[4..6].copy_from_slice(&NEW_TABLE.to_ne_bytes());
        assert_eq!(Answer::parse(&present, 3), Some(Answer::Present { uses: None, policy: None }));
        assert_eq!(Answer::parse(&present, 4), None, "the answer to another question");
        assert_eq!(Answer::parse(&error(-libc::ENOENT, 3), 3), Some(Answer::Refused(libc::ENOENT)));
        let both = [error(-libc::ENOENT, 2), present].concat();
        assert_eq!(
            Answer::parse(&both, 3),
            Some(Answer::Present { uses: None, policy: None }),
            "the second message of two"
        );
    }

    #[test]
    fn the_uses_of_a_chain_are_read_behind_its_other_attributes() {
        let chain = Question::Chain { family: TableFamily::Ipv4, table: "nat", name: "KUBE-SERVICES" };
        let mut answer = chain.emit(5);
        answer[4..6].copy_from_slice(&NEW_CHAIN.to_ne_bytes());
        assert_eq!(Answer::parse(&answer, 5), Some(Answer::Present { uses: None, policy: None }));
        let attribute = [&8_u16.to_ne_bytes()[..], &CHAIN_USE.to_ne_bytes(), &258_u32.to_be_bytes()].concat();
        answer.extend_from_slice(&attribute);
        let length = u32::try_from(answer.len()).unwrap();
        answer[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(Answer::parse(&answer, 5), Some(Answer::Present { uses: Some(258), policy: None }));
        let policy = [&8_u16.to_ne_bytes()[..], &CHAIN_POLICY.to_ne_bytes(), &DROP.to_be_bytes()].concat();
        let mut dropping = [&answer[..], &policy].concat();
        dropping[..4].copy_from_slice(&(length + 8).to_ne_bytes());
        assert_eq!(Answer::parse(&dropping, 5), Some(Answer::Present { uses: Some(258), policy: Some(DROP) }));
        answer[48..50].copy_from_slice(&0_u16.to_ne_bytes());
        assert_eq!(
            Answer::parse(&answer, 5),
            Some(Answer::Present { uses: None, policy: None }),
            "a length of zero ends the reading"
        );
    }

    /// A rule as the kernel lists it, as far as it matters, with another attribute in front.
    fn rule(target: &str, sequence: u32) -> Vec<u8> {
        let mut message =
            Question::Rules { family: TableFamily::Ipv4, table: "nat", chain: "PREROUTING" }.emit(sequence);
        message.extend(verdict_chain(target));
        message.resize(message.len().next_multiple_of(4), 0);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&NEW_RULE.to_ne_bytes());
        message[6..8].copy_from_slice(&2_u16.to_ne_bytes());
        message
    }

    #[test]
    fn a_rule_that_jumps_to_the_chain_is_found_among_others() {
        let asked = Question::Rules { family: TableFamily::Ipv4, table: "nat", chain: "PREROUTING" }.emit(7);
        assert_eq!(asked[4..8], [0x0a07_u16.to_ne_bytes(), 0x0301_u16.to_ne_bytes()].concat(), "GETRULE, a list");
        let done = || {
            let mut message = error(0, 7);
            message[4..6].copy_from_slice(&DONE.to_ne_bytes());
            message
        };
        let heard = |parts: &[Vec<u8>]| {
            let mut jumps = Jumps::default();
            parts.iter().for_each(|part| jumps.take(part, 7, "KUBE-SERVICES"));
            (jumps.found, jumps.ended, jumps.interrupted)
        };
        let both = [rule("CNI-HOSTPORT", 7), rule("KUBE-SERVICES", 7)].concat();
        assert_eq!(heard(std::slice::from_ref(&both)), (true, None, false), "more may come");
        assert_eq!(heard(&[both, done()]), (true, Some(Ok(())), false));
        let others = [rule("KUBE-SERVICES-2", 7), rule("KUBE", 7), rule("KUBE-SERVICES", 6)].concat();
        assert_eq!(heard(&[others, done()]), (false, Some(Ok(())), false));
        assert_eq!(heard(&[error(-libc::ENOENT, 7)]), (false, Some(Err(libc::ENOENT)), false));
        let mut interrupted = done();
        interrupted[6..8].copy_from_slice(&INTERRUPTED.to_ne_bytes());
        assert_eq!(heard(&[interrupted]), (false, Some(Ok(())), true));
        for length in 0..rule("x", 7).len() {
            assert_eq!(heard(&[rule("x", 7)[..length].to_vec()]), (false, None, false));
        }
    }

    #[test]
    fn octets_of_any_kind_do_no_harm() {
        let message = error(i32::MIN, 1);
        assert_eq!(Answer::parse(&message, 1), None, "a number that has no counterpart");
        for length in 0..message.len() {
            assert_eq!(Answer::parse(&message[..length], 1), None);
        }
        let endless = [0; 64];
        assert_eq!(Answer::parse(&endless, 0), None, "a length of zero ends the reading");
    }
}
