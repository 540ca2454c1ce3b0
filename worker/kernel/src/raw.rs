//! What the products share to spread over threads: a raw pointer for threads that each write their
//! own part, and a loop that stays on the calling thread where there is only one.

use rayon::prelude::*;

/// Runs `work` for 0 … `count` − 1 on rayon's threads; on this one if there is nobody to share
/// with, for handing a small product to a pool of one thread and waiting for it costs a good part
/// of its time.
pub(crate) fn for_each(count: usize, work: impl Fn(usize) + Sync + Send) {
    if count == 1 || rayon::current_num_threads() == 1 {
        (0..count).for_each(work);
    } else {
        (0..count).into_par_iter().for_each(work);
    }
}

/// Shared output of one product.
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: whoever dereferences the pointer promises that threads write disjoint parts within its
// bounds.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer. (A method, so that closures capture the wrapper and not the pointer in it.)
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}
