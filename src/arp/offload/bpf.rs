//! The kernel's `bpf(2)`, as far as the answering of ARP needs it: tables, a program, and attaching it.
//! Floor 2. It knows nothing of ARP: `program` makes the instructions, `offload` uses the tables. All `unsafe` of both.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::program::{Instruction, Key, Word};

/// A table from keys to values of eight octets each.
#[derive(Debug)]
pub struct Table(OwnedFd);

impl Table {
    /// # Errors
    /// EPERM without CAP_BPF and CAP_NET_ADMIN, or if the kernel is locked down; ENOSYS without `bpf(2)`.
    pub fn create(most: u32) -> io::Result<Table> {
        create_map(MAP_HASH, size_of::<Key>(), 8, most, NO_PREALLOCATION).map(Table)
    }

    /// # Errors
    /// E2BIG if the table is full.
    pub fn put(&self, key: &Key, value: &[u8; 8]) -> io::Result<()> {
        self.element(UPDATE, key, Some(value))
    }

    /// A key that is not there is no error.
    pub fn remove(&self, key: &Key) -> io::Result<()> {
        match self.element(DELETE, key, None) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }

    fn element(&self, command: libc::c_long, key: &Key, value: Option<&[u8; 8]>) -> io::Result<()> {
        let value = value.map_or(0, |value| place(value.as_ptr()));
        let attributes = Element { map: word(self.0.as_raw_fd()), pad: 0, key: place(key.as_ptr()), value, flags: 0 };
        // SAFETY: key and value are as long as the table was made for, and live until the end of the call.
        unsafe { bpf(command, &attributes) }.map(drop)
    }
}

/// The words of memory that this process and the program share.
#[derive(Debug)]
pub struct Cell {
    map: OwnedFd,
    start: NonNull<AtomicU64>,
}

// SAFETY: the mapping is only ever used by atomic operations, and is unmapped by the one that owns it.
unsafe impl Send for Cell {}

impl Cell {
    /// # Errors
    /// Those of [`Table::create`], and EINVAL before Linux 5.5, which cannot share a table.
    pub fn create() -> io::Result<Cell> {
        let map = create_map(MAP_ARRAY, 4, CELL_LEN, 1, SHARED)?;
        // SAFETY: a new mapping at a place of the kernel's choice, of the one page that the array has.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CELL_LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<AtomicU64>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Cell { map, start }),
            None => Err(io::Error::last_os_error()),
        }
    }

    pub fn read(&self, which: Word) -> u64 {
        self.word(which).load(Ordering::Relaxed)
    }

    pub fn write(&self, which: Word, value: u64) {
        self.word(which).store(value, Ordering::Relaxed);
    }

    fn word(&self, which: Word) -> &AtomicU64 {
        let index = usize::from(which.offset().unsigned_abs()) / size_of::<AtomicU64>();
        // SAFETY: the mapping begins at a page and holds every word; the kernel changes them by atomic operations only.
        unsafe { self.start.add(index).as_ref() }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // SAFETY: the mapping of `create`, which nothing refers to any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), CELL_LEN) };
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Cell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A program that the kernel has verified.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// # Errors
    /// EACCES or EINVAL if the kernel refuses the program; the message then ends with the last line of the verifier.
    pub fn load(code: &[Instruction]) -> io::Result<Program> {
        let mut log = vec![0_u8; LOG_LEN];
        let attributes = Load {
            kind: PROGRAM_CLASSIFIER,
            count: u32::try_from(code.len()).unwrap_or(u32::MAX),
            code: place(code.as_ptr()),
            license: place(LICENSE.as_ptr()),
            log_level: 1,
            log_len: u32::try_from(log.len()).unwrap_or_default(),
            log: place(log.as_mut_ptr()),
            kernel: 0,
            flags: 0,
            name: *b"crier_arp\0\0\0\0\0\0\0",
        };
        // SAFETY: code, license and log are as long as they say, and live until the end of the call.
        match unsafe { bpf(LOAD, &attributes) } {
            Ok(program) => Ok(Program(owned(program))),
            Err(error) => {
                let log = String::from_utf8_lossy(&log);
                let lines = || log.trim_end_matches('\0').lines().map(str::trim).filter(|line| !line.is_empty());
                // The last line but one counts instructions.
                match lines().rev().find(|line| !line.starts_with("processed")) {
                    Some(line) => Err(io::Error::new(error.kind(), format!("{error}: {line}"))),
                    None => Err(error),
                }
            }
        }
    }
}

/// A program attached to the ingress of a link for as long as this value lives. It is removed if the process dies.
#[derive(Debug)]
pub struct Attachment(OwnedFd);

/// The descriptor that keeps the program attached, in whatever process it is open.
impl From<Attachment> for OwnedFd {
    fn from(Attachment(link): Attachment) -> OwnedFd {
        link
    }
}

impl Attachment {
    /// Attaches in front of every other tcx program of the link.
    ///
    /// # Errors
    /// EINVAL before Linux 6.6, which has no tcx; ENODEV if the link is gone.
    pub fn of(program: &Program, index: u32) -> io::Result<Attachment> {
        let attributes = LinkCreate {
            program: word(program.0.as_raw_fd()),
            target: index,
            place: TCX_INGRESS,
            flags: IN_FRONT,
            relative: 0,
            pad: 0,
            revision: 0,
        };
        // SAFETY: the attributes hold descriptors and numbers only.
        unsafe { bpf(LINK_CREATE, &attributes) }.map(|link| Attachment(owned(link)))
    }
}

/// CLOCK_MONOTONIC, in nanoseconds: the clock that a program can read.
pub fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec at the place of one.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    if outcome == 0 { part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec)) } else { 0 }
}

fn create_map(kind: u32, key: usize, value: usize, most: u32, flags: u32) -> io::Result<OwnedFd> {
    let length = |length: usize| u32::try_from(length).unwrap_or_default();
    let attributes = MapCreate { kind, key: length(key), value: length(value), most, flags };
    // SAFETY: the attributes hold numbers only.
    unsafe { bpf(MAP_CREATE, &attributes) }.map(owned)
}

/// # Safety
/// Every place that the attributes name holds what the command expects there, until the call is over.
unsafe fn bpf<A>(command: libc::c_long, attributes: &A) -> io::Result<i32> {
    // SAFETY: the kernel reads as many octets as the attributes have; what they lead to is the caller's word.
    let outcome = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<A>()) };
    match i32::try_from(outcome) {
        Ok(outcome) if outcome >= 0 => Ok(outcome),
        _ => Err(io::Error::last_os_error()),
    }
}

fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel has just opened it for this process, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// A place in memory, as the kernel wants it told.
fn place<T>(of: *const T) -> u64 {
    of.addr() as u64
}

/// A descriptor as the kernel wants it told; one that is open is never negative.
fn word(descriptor: i32) -> u32 {
    descriptor.cast_unsigned()
}

/// The beginnings of the kernel's `union bpf_attr`, one for each command; what is not given counts as 0.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key: u32,
    value: u32,
    most: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    place: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

const MAP_CREATE: libc::c_long = 0;
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_HASH: u32 = 1;
const MAP_ARRAY: u32 = 2;
const NO_PREALLOCATION: u32 = 1;
const SHARED: u32 = 1 << 10;
const PROGRAM_CLASSIFIER: u32 = 3;
const TCX_INGRESS: u32 = 46;
const IN_FRONT: u32 = 1 << 3;
/// None of the helpers in use requires the GPL.
const LICENSE: &[u8] = b"Apache-2.0\0";
/// Room for the log of the verifier.
const LOG_LEN: usize = 64 * 1024;
const CELL_LEN: usize = Word::ALL.len() * size_of::<AtomicU64>();
