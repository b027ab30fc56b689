//! The pages of the program that a running component keeps.
//!
//! One binary holds every part, and the kernel maps what surrounds each page that is touched. Starting (arguments,
//! certificates, the first lists of everything) touches far more of it than running does, and those pages would count
//! as resident in every process for its whole life. So a component that has settled gives them all back once: what it
//! still uses returns from the page cache at the next touch, within microseconds; what it does not stays away.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::time::Duration;

use anyhow::Context;
use nix::sys::mman::{MmapAdvise, madvise};
use procfs::process::{MMPermissions, MemoryMap, Process};

/// By then a component is ready, or waits for something that will not come soon.
const SETTLED: Duration = Duration::from_secs(10);

/// Gives back what starting needed, once. Must be called inside a runtime.
pub(crate) fn trim_when_settled() {
    tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        if let Err(error) = trim() {
            tracing::debug!(error = format!("{error:#}"), "program pages stay resident");
        }
    });
}

fn trim() -> anyhow::Result<()> {
    let program = std::fs::metadata("/proc/self/exe").context("cannot look up the program")?;
    let maps = Process::myself()
        .and_then(|own| own.smaps())
        .context("cannot read the memory map")?;
    for map in maps.iter().filter(|map| map.inode == program.ino()) {
        if let Some(pages) = unchanged(map) {
            give_back(pages)?;
        }
    }
    Ok(())
}

/// The range of a mapping that is the file's bytes and nothing else: nobody may write to it, and nobody did before it
/// was made read-only (the loader writes addresses into some).
fn unchanged(map: &MemoryMap) -> Option<Range<usize>> {
    let anonymous = *map.extension.map.get("Anonymous")?;
    let fixed = !map.perms.contains(MMPermissions::WRITE) && anonymous == 0;
    let (start, end) = map.address;
    let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
    (fixed && !range.is_empty()).then_some(range)
}

fn give_back(pages: Range<usize>) -> anyhow::Result<()> {
    let start = NonZeroUsize::new(pages.start).context("a mapping at address 0")?;
    let start = NonNull::with_exposed_provenance(start);
    #[expect(
        unsafe_code,
        reason = "the pages are a file's, unmodified and not writable: the next access reads the same bytes again"
    )]
    unsafe { madvise(start, pages.len(), MmapAdvise::MADV_DONTNEED) }
        .with_context(|| format!("cannot give back {} bytes", pages.len()))
}

#[cfg(test)]
mod tests {
    use procfs::process::Process;

    use super::{trim, unchanged};

    #[test]
    fn gives_back_program_pages_and_goes_on() {
        let before = resident();
        trim().unwrap();
        let after = resident();
        assert!(after < before, "{before} bytes before, {after} after");
    }

    fn resident() -> u64 {
        let maps = Process::myself().unwrap().smaps().unwrap();
        let program = maps.iter().filter(|map| unchanged(map).is_some());
        program.map(|map| map.extension.map["Rss"]).sum()
    }
}
