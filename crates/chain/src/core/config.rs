//! A replica's settings, inputs and effects.

use std::sync::Arc;

use crate::block::SharedBlock;
use crate::mempool::MempoolLimits;
use crate::message::{Message, Request};
use crate::record::Record;
use crate::state::State;
use crate::tx::{Payload, SharedTransaction};
use crate::types::{Epoch, Micros, ReplicaId, View};
use crate::vote::{Evidence, SharedCertificate};

/// Settings that replicas need not agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Slot interval T: at least this long between the starts of two views that this replica sees. 0 is allowed.
    pub slot_us: Micros,
    /// How long a leader without transactions waits before it proposes an empty block. An idle chain grows by a block
    /// (about 1 KiB) each time.
    pub idle_us: Micros,
    /// View timeout before any round trip is measured, and its lower bound afterwards.
    pub timeout_min_us: Micros,
    /// Upper bound of the view timeout, backoff included.
    pub timeout_max_us: Micros,
    /// Least interval between repetitions of what may have been lost.
    pub retry_min_us: Micros,
    /// Whether every certificate that this replica assembles goes to everybody at once, and not only when progress stops.
    pub eager_certificates: Eager,
    /// Least time between two messages that pass submitted transactions on; what is submitted meanwhile goes together.
    pub gossip_us: Micros,
    /// Bounds of the mempool.
    pub mempool: MempoolLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slot_us: 0,
            idle_us: 500_000,
            timeout_min_us: 100_000,
            timeout_max_us: 10_000_000,
            retry_min_us: 50_000,
            eager_certificates: Eager::Slow,
            gossip_us: 2_000,
            mempool: MempoolLimits::default(),
        }
    }
}

/// When a certificate that a replica assembles goes to everybody at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eager {
    /// Always: half as many messages again, and each certificate has several ways to arrive.
    Always,
    /// In views that take longer than three round trips, since in those something was lost or late.
    #[default]
    Slow,
    /// Only when progress stops and all is repeated.
    Never,
}

/// Deliberately broken rules. Only tests and the simulator can ask for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Certificates need one vote less than a quorum.
    pub(crate) quorum_minus_one: bool,
    /// Votes are sent before they are synced.
    pub(crate) send_before_sync: bool,
    /// A notarization finalizes.
    pub(crate) finalize_on_notarization: bool,
    /// A view is nullified although this replica voted to finalize it.
    pub(crate) nullify_after_finalize: bool,
    /// Proposals are accepted across views that are not nullified.
    pub(crate) vote_across_gap: bool,
}

/// Something that happened to the replica.
#[derive(Debug, Clone)]
pub enum Input {
    /// A message from another replica or observer. `from` is as the transport authenticated it.
    Receive {
        /// The sender; `None` for one that is no base station, such as the macro base station.
        from: Option<ReplicaId>,
        /// The message.
        message: Arc<Message>,
    },
    /// A payload to sign and have recorded.
    Submit(Payload),
    /// Every record up to this number is durable.
    Persisted(u64),
    /// A measured round trip to another replica.
    RoundTrip {
        /// The other replica.
        peer: ReplicaId,
        /// The measurement.
        rtt_us: Micros,
    },
    /// Time has passed; due at [`super::Core::deadline`].
    Tick,
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Every other replica and observer.
    All,
    /// One replica; `None` is the observer that the input being handled came from.
    One(Option<ReplicaId>),
}

/// Something for the driver to do, in the order given.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Append a record to the journal. Numbers ascend by one; the driver may sync any number of them together and
    /// then reports [`Input::Persisted`] with the last. It must stop the replica when writing fails.
    Persist {
        /// The record's number.
        number: u64,
        /// The record.
        record: Record,
    },
    /// Send a message. What must be durable first already is. Delivery need not be reliable.
    Send {
        /// To whom.
        to: Target,
        /// The message.
        message: Arc<Message>,
    },
    /// Answer a request for finalized blocks from the store.
    Serve {
        /// Who asked.
        to: Option<ReplicaId>,
        /// What for.
        request: Request,
    },
    /// Tell the application.
    Notify(Event),
}

/// What the application may want to know.
#[derive(Debug, Clone)]
pub enum Event {
    /// A block joined the finalized chain.
    Committed {
        /// The block.
        block: SharedBlock,
        /// The state after it.
        state: Arc<State>,
        /// The certificate, on the last of the blocks that it finalized together.
        certificate: Option<SharedCertificate>,
    },
    /// A view was entered.
    Entered {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
    },
    /// A view ended without a block.
    Nullified {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// Its leader.
        leader: ReplicaId,
    },
    /// A proposal of this replica's own went out.
    Proposed {
        /// The block.
        block: SharedBlock,
        /// The view that it was put forward in.
        view: View,
    },
    /// A message carried a signature that is not valid. The driver may slow its sender down.
    Invalid {
        /// The sender.
        from: Option<ReplicaId>,
        /// What was signed.
        what: &'static str,
    },
    /// Somebody voted twice.
    Equivocation(Box<Evidence>),
    /// A certificate contradicts what this replica finalized or names a block that is not valid: more than f
    /// producers are faulty. The certificate is not acted on.
    Conflict(SharedCertificate),
    /// A submitted payload was signed and waits for a block.
    Submitted(SharedTransaction),
    /// A submitted payload, or a transaction of this replica's own, cannot be recorded.
    Rejected {
        /// What cannot be recorded.
        payload: Box<Payload>,
        /// Why.
        reason: String,
    },
}
