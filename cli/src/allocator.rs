//! The allocator of all components.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Gives back to the kernel what is free, of this thread and of what other threads have let go.
pub(crate) fn give_back() {
    #[expect(
        unsafe_code,
        reason = "a function of the allocator above, with this signature, that any thread may call at any time"
    )]
    unsafe {
        mi_collect(true);
    }
}

#[expect(unsafe_code, reason = "declares mi_collect as mimalloc.h does")]
unsafe extern "C" {
    fn mi_collect(force: bool);
}

#[cfg(test)]
mod tests {
    use procfs::process::Process;

    use super::give_back;

    #[test]
    fn what_is_free_is_given_back() {
        let anonymous = || {
            let memory = Process::myself().unwrap().statm().unwrap();
            (memory.resident - memory.shared) * procfs::page_size()
        };
        let pieces: Vec<Vec<u8>> = (0..40_000).map(|_| vec![1; 1000]).collect();
        let full = anonymous();
        drop(pieces);
        give_back();
        let after = anonymous();
        assert!(
            after + 30_000_000 < full,
            "{full} bytes before, {after} after"
        );
    }
}
