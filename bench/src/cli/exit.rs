//! How the program ends.

/// Something is wrong, or slower than it was.
pub(super) const FAILURE: u8 = 1;

/// Results cannot be compared.
pub(super) const INCOMPARABLE: u8 = 2;

/// As shells report a program that Ctrl-C ended.
pub(super) const INTERRUPTED: u8 = 130;
