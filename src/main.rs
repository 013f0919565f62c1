//! dtwn: a Digital Twin Wireless Network emulator.
fn main() {}
