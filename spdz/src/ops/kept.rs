//! What operations make in the set-up and use in every evaluation.

use std::any::Any;

/// Something that an operation made in the set-up, such as a packed weight. It is the
/// operation's own affair, and is never printed.
pub struct Kept(Box<dyn Any + Send + Sync>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept(..)")
    }
}

impl Kept {
    /// Keeps a value.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Self(Box::new(value))
    }
}

/// What an operation kept, by its type.
#[must_use]
pub fn kept<T: Any>(kept: Option<&Kept>) -> &T {
    let Some(value) = kept.and_then(|kept| kept.0.downcast_ref()) else {
        unreachable!("an operation finds what it kept in the set-up");
    };
    value
}
