//! Atelier.
fn main() {}
