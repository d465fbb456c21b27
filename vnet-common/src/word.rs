//! Words that several CPUs write.
//!
//! On the host they are the standard library's atomics. Rust offers no 32-bit atomics for its BPF target,
//! and LLVM no atomic loads below cpu v4, although aligned loads and stores are single instructions and v3
//! (kernel ≥ 5.12) has the read-modify-write ones. There volatile access and the compiler's intrinsics stand
//! in.

#[cfg(not(target_arch = "bpf"))]
pub use host::{DoubleWord, Word};

#[cfg(target_arch = "bpf")]
pub use kernel::{DoubleWord, Word};

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    };

    use zerocopy::{FromBytes, IntoBytes, KnownLayout};

    macro_rules! words {
        ($($(#[$doc:meta])* $name:ident: $number:ty as $atomic:ty;)*) => { $(
            $(#[$doc])*
            #[repr(transparent)]
            #[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
            pub struct $name($atomic);

            impl Clone for $name {
                fn clone(&self) -> Self {
                    Self::new(self.load())
                }
            }

            impl $name {
                pub const fn new(value: $number) -> Self {
                    Self(<$atomic>::new(value))
                }

                pub fn load(&self) -> $number {
                    self.0.load(Acquire)
                }

                pub fn store(&self, value: $number) {
                    self.0.store(value, Release);
                }

                /// Adds (wrapping) and returns the value before.
                pub fn add(&self, by: $number) -> $number {
                    self.0.fetch_add(by, AcqRel)
                }

                /// Subtracts (wrapping) and returns the value before.
                pub fn subtract(&self, by: $number) -> $number {
                    self.0.fetch_sub(by, AcqRel)
                }

                pub fn set_bits(&self, bits: $number) {
                    self.0.fetch_or(bits, AcqRel);
                }

                /// Puts `new` where `old` stands; false where something else stood.
                pub fn replace(&self, old: $number, new: $number) -> bool {
                    self.0.compare_exchange(old, new, AcqRel, Relaxed).is_ok()
                }
            }
        )* };
    }

    words! {
        /// 32 bits.
        Word: u32 as AtomicU32;
        /// 64 bits.
        DoubleWord: u64 as AtomicU64;
    }
}

#[cfg(target_arch = "bpf")]
mod kernel {
    use core::{
        cell::UnsafeCell,
        intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_or, atomic_xadd},
    };

    macro_rules! words {
        ($($(#[$doc:meta])* $name:ident: $number:ty;)*) => { $(
            $(#[$doc])*
            #[repr(transparent)]
            pub struct $name(UnsafeCell<$number>);

            // SAFETY: every access goes through single instructions on an aligned word.
            unsafe impl Sync for $name {}

            impl $name {
                #[inline(always)]
                pub const fn new(value: $number) -> Self {
                    Self(UnsafeCell::new(value))
                }

                #[inline(always)]
                pub fn load(&self) -> $number {
                    // SAFETY: the word is valid and aligned.
                    unsafe { self.0.get().read_volatile() }
                }

                #[inline(always)]
                pub fn store(&self, value: $number) {
                    // SAFETY: as above.
                    unsafe { self.0.get().write_volatile(value) }
                }

                #[inline(always)]
                pub fn add(&self, by: $number) -> $number {
                    // SAFETY: as above.
                    unsafe { atomic_xadd::<$number, $number, { SeqCst }>(self.0.get(), by) }
                }

                #[inline(always)]
                pub fn subtract(&self, by: $number) -> $number {
                    // SAFETY: as above.
                    unsafe { atomic_xadd::<$number, $number, { SeqCst }>(self.0.get(), by.wrapping_neg()) }
                }

                #[inline(always)]
                pub fn set_bits(&self, bits: $number) {
                    // SAFETY: as above.
                    unsafe { atomic_or::<$number, $number, { SeqCst }>(self.0.get(), bits) };
                }

                #[inline(always)]
                pub fn replace(&self, old: $number, new: $number) -> bool {
                    // SAFETY: as above.
                    unsafe { atomic_cxchg::<$number, { SeqCst }, { SeqCst }>(self.0.get(), old, new) }.1
                }
            }
        )* };
    }

    words! {
        /// 32 bits.
        Word: u32;
        /// 64 bits.
        DoubleWord: u64;
    }
}
