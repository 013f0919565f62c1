//! The air medium: a per-packet link emulator between TUN devices.
