//! Recording packets as pcapng while the medium runs.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::spec::{EndpointId, LinkId};

/// Which packets a capture records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureFilter {
    /// What every endpoint sends and receives, and every drop.
    All,
    /// What this endpoint sends and receives.
    Endpoint(EndpointId),
    /// What enters this link, and what it drops.
    Link(LinkId),
}

/// Where a capture is written.
pub type CaptureWriter = Box<dyn Write + Send>;
