//! The crate's error.

/// Why the medium refused something or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AirError {
    /// A link property has a value that makes no sense.
    #[error("link `{link}`: {property} = {value}; must be {want}")]
    Property {
        /// Name of the link.
        link: String,
        /// Name of the property.
        property: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        want: &'static str,
    },
    /// An id that names nothing.
    #[error("{what} {index} does not exist; there are {count}")]
    Unknown {
        /// Kind of thing.
        what: &'static str,
        /// The index that was given.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// Two things that must differ have the same name, or two stations the same address.
    #[error("{what} `{name}` is given twice")]
    Duplicate {
        /// Kind of thing.
        what: &'static str,
        /// The name or address.
        name: String,
    },
    /// An address match with bits outside its mask, which could never match.
    #[error("station `{station}`: address {value} has bits outside its mask {mask}")]
    Address {
        /// Name of the station.
        station: String,
        /// The value.
        value: std::net::Ipv4Addr,
        /// The mask.
        mask: std::net::Ipv4Addr,
    },
    /// An attachment that would close a loop.
    #[error("station `{station}` cannot be attached below `{parent}`: that is itself or below it")]
    Cycle {
        /// The station.
        station: String,
        /// The intended parent.
        parent: String,
    },
    /// A root has no links towards a parent.
    #[error("station `{station}` is a root and cannot be attached: it has no up and down link")]
    Root {
        /// The station.
        station: String,
    },
    /// The number of file descriptors differs from that of endpoints.
    #[error("{tuns} TUN descriptors for {endpoints} endpoints")]
    Tuns {
        /// Descriptors given.
        tuns: usize,
        /// Endpoints in the specification.
        endpoints: usize,
    },
    /// Too many of something for its id type or the medium's memory.
    #[error("{count} {what}; at most {max}")]
    TooMany {
        /// Kind of thing.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// The bound on packet memory does not even hold a packet to read and one to keep.
    #[error("{given} bytes of packet memory; at least {least} for an MTU of {mtu}")]
    Memory {
        /// The bound that was given, bytes.
        given: u64,
        /// The least that works, bytes.
        least: u64,
        /// The MTU, bytes.
        mtu: u16,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The medium's thread has ended.
    #[error("the medium has stopped")]
    Stopped,
    /// No capture has this id.
    #[error("capture {0} does not exist or has ended")]
    Capture(u32),
}

impl AirError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
