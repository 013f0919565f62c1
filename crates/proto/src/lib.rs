//! Messages and events exchanged between dtwn's processes, and their encoding.
//!
//! Three conversations, one encoding (MessagePack with named fields, so that a reader of another version finds what it knows):
//!
//! | module | between | over |
//! | --- | --- | --- |
//! | [`control`] | commands and viewers ↔ session | a Unix stream socket, one [`frame`] a message |
//! | [`agent`] | session ↔ the agent of a node | an inherited socket pair, one [`frame`] a message |
//! | [`node`] | nodes, inside the envelopes of the bus | ZeroMQ, over the air |
//! | [`event`] | session → recorder → every view | the run's event file, one checked [`log`] record an event |
//!
//! A fourth, [`bus`], joins the nodes over the air; its envelopes are signed and packed by hand, for they are many.

pub mod agent;
pub mod bus;
pub mod control;
pub mod event;
pub mod frame;
pub mod log;
pub mod node;

/// Version of everything in this crate. Processes of different versions refuse to talk to each other.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of the event schema, written into each event file and each line of `dtwn events --json`.
pub const EVENT_SCHEMA: u32 = 1;
