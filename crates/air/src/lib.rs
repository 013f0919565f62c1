//! The air medium: a per-packet link emulator between TUN devices.
//!
//! Stations form a forest; every station but a root has a link up to its parent and one down from it. A packet read
//! from a station's TUN climbs to the lowest common ancestor of its source and destination and descends from there,
//! and each link on the way is a full stage of the pipeline:
//!
//! 1. *partition* check, and is the link up;
//! 2. *queue*, bounded in bytes, served by deficit round robin over flows or first in, first out;
//! 3. *serialisation* by the transmitter, in logical time (`start = max(arrival, last_finish)`), so that the error of
//!    a timer never accumulates;
//! 4. *fate*, once the airtime is spent: loss, duplication, corruption, reordering, or retransmission;
//! 5. *propagation*: delay and jitter, in order;
//! 6. the next link, or delivery into the destination's TUN.
//!
//! [`core`] is that pipeline as a state machine without input, output or clock; [`Medium`] drives it from a thread of
//! its own. The medium knows IPv4 packets and wall time; it knows nothing of what runs over it.

mod capture;
pub mod core;
mod driver;
mod error;
mod forward;
mod handle;
mod meters;
mod packet;
mod pcapng;
mod spec;

pub use capture::{CaptureFilter, CaptureWriter};
pub use error::AirError;
pub use forward::forward_bare;
pub use handle::{CaptureId, Medium, MediumHandle, Options};
pub use meters::{
    AirSnapshot, Count, Distribution, DropCause, Drops, EndpointMeters, LinkMeters, OverrideMeters,
    STRETCH_MIN_NS, TimeSummary, Totals,
};
pub use spec::{
    AddressMatch, AirSpec, Arq, Attachment, DELAY_MAX, Discipline, EndpointId, EndpointSpec, LinkId,
    LinkPatch, LinkProperties, LinkSpec, Loss, Queue, QueueBytes, RATE_BPS_MAX, StationId, StationSpec,
};
