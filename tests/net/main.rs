//! Drives the real program in real namespaces: every verb against live sessions, as whoever runs the tests and without
//! privileges, and what happens when things are killed, full, hostile or slow.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

#[path = "../common/mod.rs"]
mod common;

mod association;
mod bring_up;
mod calibrate;
mod capture;
mod chain;
mod chain_damage;
mod cifar10;
mod deployed;
mod events;
mod exec;
mod headless;
mod hostile;
mod killed;
mod learning;
mod nodes;
mod output;
mod refused;
mod replay;
mod report;
mod rounds;
mod sessions;
mod steering;
mod tui;
mod twins;
