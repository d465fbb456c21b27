//! A word that several CPUs write.
//!
//! On the host it is an `AtomicU32`. Rust offers no 32-bit atomics for its BPF target, and LLVM no
//! atomic loads below cpu v4, although aligned loads and stores are single instructions and v3 (kernel
//! ≥ 5.12) has the read-modify-write ones. There volatile access and the compiler's intrinsics stand in.

#[cfg(not(target_arch = "bpf"))]
pub use host::Word;

#[cfg(target_arch = "bpf")]
pub use kernel::Word;

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::sync::atomic::{
        AtomicU32,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    };

    use zerocopy::{FromBytes, IntoBytes, KnownLayout};

    /// See the module.
    #[repr(transparent)]
    #[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
    pub struct Word(AtomicU32);

    impl Clone for Word {
        fn clone(&self) -> Self {
            Self::new(self.load())
        }
    }

    impl Word {
        pub const fn new(value: u32) -> Self {
            Self(AtomicU32::new(value))
        }

        pub fn load(&self) -> u32 {
            self.0.load(Acquire)
        }

        pub fn store(&self, value: u32) {
            self.0.store(value, Release);
        }

        /// Adds (wrapping) and returns the value before.
        pub fn add(&self, by: u32) -> u32 {
            self.0.fetch_add(by, AcqRel)
        }

        /// Subtracts (wrapping) and returns the value before.
        pub fn subtract(&self, by: u32) -> u32 {
            self.0.fetch_sub(by, AcqRel)
        }

        pub fn set_bits(&self, bits: u32) {
            self.0.fetch_or(bits, AcqRel);
        }

        /// Puts `new` where `old` stands; false where something else stood.
        pub fn replace(&self, old: u32, new: u32) -> bool {
            self.0.compare_exchange(old, new, AcqRel, Relaxed).is_ok()
        }
    }
}

#[cfg(target_arch = "bpf")]
mod kernel {
    use core::{
        cell::UnsafeCell,
        intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_or, atomic_xadd},
    };

    /// See the module.
    #[repr(transparent)]
    pub struct Word(UnsafeCell<u32>);

    // SAFETY: every access goes through single instructions on an aligned word.
    unsafe impl Sync for Word {}

    impl Word {
        #[inline(always)]
        pub const fn new(value: u32) -> Self {
            Self(UnsafeCell::new(value))
        }

        #[inline(always)]
        pub fn load(&self) -> u32 {
            // SAFETY: the word is valid and aligned.
            unsafe { self.0.get().read_volatile() }
        }

        #[inline(always)]
        pub fn store(&self, value: u32) {
            // SAFETY: as above.
            unsafe { self.0.get().write_volatile(value) }
        }

        #[inline(always)]
        pub fn add(&self, by: u32) -> u32 {
            // SAFETY: as above.
            unsafe { atomic_xadd::<u32, u32, { SeqCst }>(self.0.get(), by) }
        }

        #[inline(always)]
        pub fn subtract(&self, by: u32) -> u32 {
            // SAFETY: as above.
            unsafe { atomic_xadd::<u32, u32, { SeqCst }>(self.0.get(), by.wrapping_neg()) }
        }

        #[inline(always)]
        pub fn set_bits(&self, bits: u32) {
            // SAFETY: as above.
            unsafe { atomic_or::<u32, u32, { SeqCst }>(self.0.get(), bits) };
        }

        #[inline(always)]
        pub fn replace(&self, old: u32, new: u32) -> bool {
            // SAFETY: as above.
            unsafe { atomic_cxchg::<u32, { SeqCst }, { SeqCst }>(self.0.get(), old, new) }.1
        }
    }
}
