//! A raw pointer that may be shared between the threads of one product, each of which writes its own part.

/// Shared output of one product.
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: whoever dereferences the pointer promises that threads write disjoint parts within its bounds.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer. (A method, so that closures capture the wrapper and not the pointer in it.)
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}
