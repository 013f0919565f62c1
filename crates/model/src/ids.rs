//! Indices into a [`Plan`](crate::Plan), one type each so that a user's index cannot be taken for a BS's.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The index as a `usize`, for the vector it indexes.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// From a vector's index. The limits of a plan keep every index far below 2^32.
            pub(crate) fn at(index: usize) -> Self {
                Self(u32::try_from(index).unwrap_or(u32::MAX))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

index!(
    /// A node: a process in a network namespace of its own (the MBS, a BS, a user group). Indexes `Plan::nodes`.
    NodeId,
    "node#"
);
index!(
    /// A station of the air: the MBS, a BS, or one user. Indexes `Plan::stations`.
    StationId,
    "station#"
);
index!(
    /// A base station, counted from 0 in file order: `bs1` is usually 0.
    BsId,
    "bs#"
);
index!(
    /// A user, counted from 0 over all groups in file order.
    UserId,
    "user#"
);
index!(
    /// A link of the air. Indexes `Plan::links`.
    LinkId,
    "link#"
);
