//! The program that answers ARP inside the kernel, as eBPF instructions: it turns a plain request for an announced address
//! into its reply.
//! Floor 1. It passes every other frame on to the socket, where `machine::answer` judges it. So a request that the program
//! does not answer, for whatever reason, is answered as if there were no program.
//!
//! Every register and helper is that of the kernel's `bpf(2)`; the kernel proves the program safe before it takes it.

/// One instruction, as the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    /// The register that is changed in the low half, the one that is read in the high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// What the program is made for.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The descriptor of the table of held addresses.
    pub table: i32,
    /// The descriptor of the table of one `Cell`.
    pub cell: i32,
    /// The link that is answered on.
    pub link: u32,
}

/// What the agent and the program share, in memory: words of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The program answers until this instant of CLOCK_MONOTONIC, in nanoseconds: an agent that was stopped or froze must not
    /// go on answering while another one takes over.
    AliveUntil,
    /// Requests that were answered.
    Answered,
}

impl Word {
    pub const ALL: [Word; 2] = [Word::AliveUntil, Word::Answered];

    /// Where it begins in the cell, in octets.
    pub fn offset(self) -> i16 {
        match self {
            Word::AliveUntil => 0,
            Word::Answered => 8,
        }
    }
}

/// A key of the table: an address in network order and four zeros, or the MAC of a link of this node and two octets of ones.
pub type Key = [u8; 8];

pub fn key_of_address(address: std::net::Ipv4Addr) -> Key {
    let [a, b, c, d] = address.octets();
    [a, b, c, d, 0, 0, 0, 0]
}

/// Requests from these MACs are not answered.
pub fn key_of_own_mac(mac: crate::address::MacAddress) -> Key {
    let [a, b, c, d, e, f] = mac.0;
    [a, b, c, d, e, f, 0xff, 0xff]
}

/// A value of the table: the MAC to answer with, and two zeros.
pub fn value_of(mac: crate::address::MacAddress) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac.0;
    [a, b, c, d, e, f, 0, 0]
}

/// The program (type SCHED_CLS, attached by tcx): answers, or hands the frame on.
pub fn answering(setting: Setting) -> Vec<Instruction> {
    let mut program = Assembler::default();
    program.judge(setting);
    program.count(setting, Word::Answered);
    // The value of the table: the MAC that answers. The request becomes its own answer, piece by piece.
    for (to, from, length) in [
        (FRAME_DESTINATION, Piece::Stack(SPEAKER), 6),
        (FRAME_SOURCE, Piece::Value, 6),
        (SENDER_MAC, Piece::Value, 6),
        (SENDER_ADDRESS, Piece::Stack(TARGET), 4),
        (TARGET_MAC, Piece::Stack(SPEAKER), 6),
        (TARGET_ADDRESS, Piece::Stack(SENDER), 4),
    ] {
        program.store(to, from, length);
    }
    program.push(STORE_HALF, FRAME_POINTER, 0, HEAD, i32::from(REPLY.to_be()));
    program.store(OPERATION, Piece::Stack(HEAD), 2);
    program.load_context(R1, CONTEXT_LINK);
    program.set(R2, 0);
    program.call(HELPER_REDIRECT);
    program.exit();
    program.assembled()
}

/// What is written into a frame.
#[derive(Debug, Clone, Copy)]
enum Piece {
    Stack(i16),
    /// What the table holds for the address that is asked for.
    Value,
}

#[derive(Debug, Default)]
struct Assembler {
    code: Vec<Instruction>,
    /// Jumps to where the frame is handed on.
    jumps: Vec<usize>,
}

impl Assembler {
    /// Goes on with the value of the address in `VALUE` where the frame is a request that is answered here, and
    /// hands it on where it is not.
    fn judge(&mut self, setting: Setting) {
        self.push(MOVE, CONTEXT, R1, 0, 0);
        self.load_context(R0, CONTEXT_PROTOCOL);
        self.jump_unless_equal(R0, i32::from(ARP.to_be()));
        // A frame of a VLAN is another link's.
        self.load_context(R0, CONTEXT_TAGGED);
        self.jump_unless_equal(R0, 0);
        self.load_context(R0, CONTEXT_LINK);
        self.jump_unless_equal(R0, setting.link.cast_signed());
        // To this host, or to everybody.
        self.load_context(R0, CONTEXT_KIND);
        self.jump_if_above(R0, BROADCAST);

        // A request, of Ethernet and IPv4.
        self.load_octets(HARDWARE, HEAD, 8);
        self.push(LOAD_WORD, R0, FRAME_POINTER, HEAD, 0);
        self.jump_unless_equal(R0, i32::from_ne_bytes([0, 1, 8, 0]));
        self.push(LOAD_WORD, R0, FRAME_POINTER, HEAD + 4, 0);
        self.jump_unless_equal(R0, i32::from_ne_bytes([6, 4, 0, 1]));

        // From a station, that speaks for itself.
        self.push(STORE_DOUBLE, FRAME_POINTER, 0, SPEAKER, 0);
        self.push(STORE_DOUBLE, FRAME_POINTER, 0, HEAD, 0);
        self.load_octets(SENDER_MAC, SPEAKER, 6);
        self.load_octets(FRAME_SOURCE, HEAD, 6);
        self.push(LOAD_DOUBLE, R0, FRAME_POINTER, SPEAKER, 0);
        self.push(LOAD_DOUBLE, R1, FRAME_POINTER, HEAD, 0);
        self.jump(JUMP_UNLESS_SAME, R0, R1, 0);
        self.jump_if_equal(R0, 0);
        self.push(LOAD_OCTET, R0, FRAME_POINTER, SPEAKER, 0);
        self.jump(JUMP_IF_ANY_BIT, R0, 0, 1);
        // Not from a link of this node.
        self.push(STORE_HALF, FRAME_POINTER, 0, SPEAKER + 6, -1);
        self.look_up(setting.table, SPEAKER);
        self.jump_unless_equal(R0, 0);

        // Not a probe, and not in the name of an address that is held here.
        self.push(STORE_DOUBLE, FRAME_POINTER, 0, SENDER, 0);
        self.load_octets(SENDER_ADDRESS, SENDER, 4);
        self.push(LOAD_DOUBLE, R0, FRAME_POINTER, SENDER, 0);
        self.jump_if_equal(R0, 0);
        self.look_up(setting.table, SENDER);
        self.jump_unless_equal(R0, 0);

        // For an address that is.
        self.push(STORE_DOUBLE, FRAME_POINTER, 0, TARGET, 0);
        self.load_octets(TARGET_ADDRESS, TARGET, 4);
        self.look_up(setting.table, TARGET);
        self.jump_if_equal(R0, 0);
        self.push(MOVE, VALUE, R0, 0, 0);

        // While the agent lives.
        self.call(HELPER_MONOTONIC);
        self.load_cell(R1, setting.cell);
        self.push(LOAD_DOUBLE, R1, R1, Word::AliveUntil.offset(), 0);
        self.jump(JUMP_UNLESS_BELOW, R0, R1, 0);
    }

    fn count(&mut self, setting: Setting, word: Word) {
        self.load_cell(R1, setting.cell);
        self.set(R2, 1);
        self.push(ATOMIC_ADD, R1, R2, word.offset(), 0);
    }

    /// Looks up the key on the stack: R0 is its value's place, or 0.
    fn look_up(&mut self, table: i32, key: i16) {
        self.push(LOAD_TABLE, R1, PSEUDO_TABLE, 0, table);
        self.push(0, 0, 0, 0, 0);
        self.push(MOVE, R2, FRAME_POINTER, 0, 0);
        self.push(ADD, R2, 0, 0, i32::from(key));
        self.call(HELPER_LOOK_UP);
    }

    /// The place of the cell in memory.
    fn load_cell(&mut self, into: u8, cell: i32) {
        self.push(LOAD_TABLE, into, PSEUDO_VALUE, 0, cell);
        self.push(0, 0, 0, 0, 0);
    }

    /// Octets of the frame, to the stack.
    fn load_octets(&mut self, from: i32, to: i16, length: i32) {
        self.push(MOVE, R1, CONTEXT, 0, 0);
        self.set(R2, from);
        self.push(MOVE, R3, FRAME_POINTER, 0, 0);
        self.push(ADD, R3, 0, 0, i32::from(to));
        self.set(R4, length);
        self.call(HELPER_LOAD_OCTETS);
        self.jump_unless_equal(R0, 0);
    }

    /// Octets into the frame. Where there is no room any more for what was just read from there, the frame is handed on.
    fn store(&mut self, to: i32, from: Piece, length: i32) {
        self.push(MOVE, R1, CONTEXT, 0, 0);
        self.set(R2, to);
        match from {
            Piece::Stack(place) => {
                self.push(MOVE, R3, FRAME_POINTER, 0, 0);
                self.push(ADD, R3, 0, 0, i32::from(place));
            }
            Piece::Value => self.push(MOVE, R3, VALUE, 0, 0),
        }
        self.set(R4, length);
        self.set(R5, 0);
        self.call(HELPER_STORE_OCTETS);
        self.jump_unless_equal(R0, 0);
    }

    fn load_context(&mut self, into: u8, field: i16) {
        self.push(LOAD_WORD, into, CONTEXT, field, 0);
    }

    fn set(&mut self, register: u8, value: i32) {
        self.push(SET, register, 0, 0, value);
    }

    fn call(&mut self, helper: i32) {
        self.push(CALL, 0, 0, 0, helper);
    }

    fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0, 0);
    }

    fn jump_if_equal(&mut self, register: u8, value: i32) {
        self.jump(JUMP_IF_EQUAL, register, 0, value);
    }

    /// Of the low half of the register only: an immediate value would be extended by its sign.
    fn jump_unless_equal(&mut self, register: u8, value: i32) {
        let code = if value == 0 { JUMP_UNLESS_EQUAL } else { JUMP_UNLESS_EQUAL_32 };
        self.jump(code, register, 0, value);
    }

    fn jump_if_above(&mut self, register: u8, value: i32) {
        self.jump(JUMP_IF_ABOVE, register, 0, value);
    }

    fn jump(&mut self, code: u8, left: u8, right: u8, value: i32) {
        self.jumps.push(self.code.len());
        self.push(code, left, right, 0, value);
    }

    fn push(&mut self, code: u8, changed: u8, read: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers: changed | read << 4, offset, immediate });
    }

    /// Ends with handing the frame on, and leads every jump there.
    fn assembled(mut self) -> Vec<Instruction> {
        let end = self.code.len();
        self.set(R0, NEXT);
        self.exit();
        for from in self.jumps {
            // A jump counts from the instruction behind it; one that leads nowhere is not taken by the kernel.
            if let (Some(jump), Ok(distance)) = (self.code.get_mut(from), i16::try_from(end - from - 1)) {
                jump.offset = distance;
            }
        }
        self.code
    }
}

/// Where the parts of an ARP packet stand in its frame (RFC 826).
const FRAME_DESTINATION: i32 = 0;
const FRAME_SOURCE: i32 = 6;
const HARDWARE: i32 = 14;
const OPERATION: i32 = 20;
const SENDER_MAC: i32 = 22;
const SENDER_ADDRESS: i32 = 28;
const TARGET_MAC: i32 = 32;
const TARGET_ADDRESS: i32 = 38;
const ARP: u16 = 0x0806;
const REPLY: u16 = 2;

/// Places on the stack, of eight octets each.
const TARGET: i16 = -8;
const SENDER: i16 = -16;
const SPEAKER: i16 = -24;
const HEAD: i16 = -32;

/// Fields of the kernel's `struct __sk_buff`.
const CONTEXT_KIND: i16 = 4;
const CONTEXT_PROTOCOL: i16 = 16;
const CONTEXT_TAGGED: i16 = 20;
const CONTEXT_LINK: i16 = 40;

/// PACKET_HOST is 0 and PACKET_BROADCAST 1; whatever is above is for others.
const BROADCAST: i32 = 1;

/// TCX_NEXT: the next program, or the way that frames go without any.
const NEXT: i32 = -1;

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
/// Helpers leave these alone.
const CONTEXT: u8 = 6;
const VALUE: u8 = 7;
const FRAME_POINTER: u8 = 10;

const HELPER_LOOK_UP: i32 = 1;
const HELPER_MONOTONIC: i32 = 5;
const HELPER_STORE_OCTETS: i32 = 9;
const HELPER_REDIRECT: i32 = 23;
const HELPER_LOAD_OCTETS: i32 = 26;

/// What the second register of `LOAD_TABLE` says of its immediate: a table's descriptor, for the table or its first value.
const PSEUDO_TABLE: u8 = 1;
const PSEUDO_VALUE: u8 = 2;

// Codes: a class, and within it a size and a mode, or an operation and where its right side comes from.
const LOAD_TABLE: u8 = 0x18;
const LOAD_OCTET: u8 = 0x71;
const LOAD_WORD: u8 = 0x61;
const LOAD_DOUBLE: u8 = 0x79;
const STORE_HALF: u8 = 0x6a;
const STORE_DOUBLE: u8 = 0x7a;
const ATOMIC_ADD: u8 = 0xdb;
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x07;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_UNLESS_EQUAL_32: u8 = 0x56;
const JUMP_IF_ABOVE: u8 = 0x25;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const JUMP_UNLESS_SAME: u8 = 0x5d;
const JUMP_UNLESS_BELOW: u8 = 0x3d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting { table: 7, cell: 8, link: 2 };

    #[test]
    fn every_jump_leads_forward_to_an_instruction_of_the_program() {
        let program = answering(SETTING);
        for (place, instruction) in program.iter().enumerate() {
            let is_jump = matches!(instruction.code & 0x07, 0x05 | 0x06) && !matches!(instruction.code, CALL | EXIT);
            let to = place + 1 + usize::try_from(instruction.offset.max(0)).unwrap();
            assert!(!is_jump || (instruction.offset > 0 && to < program.len()), "{place}: {instruction:?}");
        }
        assert_eq!(program.last().map(|last| last.code), Some(EXIT));
    }

    #[test]
    fn no_address_has_the_key_of_a_mac() {
        assert_ne!(key_of_address([2, 0, 0, 0].into()), key_of_own_mac(crate::address::MacAddress([2, 0, 0, 0, 0, 0])));
    }
}
