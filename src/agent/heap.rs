//! How the heap gives memory back, so that the agent stays as small as what it keeps. Floor 3. All `unsafe` of malloc's settings.
//!
//! glibc raises both thresholds below by itself with each large block that is freed. A list of the API server is read in
//! such blocks, and what they leave free between what is kept then stays with the agent.

/// Blocks of this many octets and more are mapped one by one, and unmapped when they are freed.
const MAP_FROM: i32 = 128 * 1024;

/// The kernel gets the end of the heap back once this many octets of it are free.
const TRIM_FROM: i32 = 128 * 1024;

/// Fixes both thresholds. To be called before there is another thread. Of other allocators than glibc's nothing is asked.
pub fn give_back_early() {
    #[cfg(target_env = "gnu")]
    for (parameter, octets) in [(libc::M_MMAP_THRESHOLD, MAP_FROM), (libc::M_TRIM_THRESHOLD, TRIM_FROM)] {
        // SAFETY: mallopt takes two numbers and touches no memory of ours. It refuses a value by returning 0: then glibc goes on
        // as it did, which costs memory and nothing else.
        unsafe { libc::mallopt(parameter, octets) };
    }
}
