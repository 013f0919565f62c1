//! `[radio]`: the constants of Eq. 7–8.

use super::OrNone;
use crate::units::{Dbm, DbmPerHz, Decibels, Hertz, Interval, Metres};
use serde::{Deserialize, Serialize};

/// `[radio]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Radio {
    /// C: how many subchannels the BSs share.
    pub subchannels: u32,
    /// W: the bandwidth of one subchannel.
    pub bandwidth: Hertz,
    /// N0: the noise power spectral density.
    pub noise_density: DbmPerHz,
    /// α: the path-loss exponent; power falls with distance^(−α).
    pub path_loss_exponent: f64,
    /// Loss at 1 m, on top of distance^(−α). 0 dB gives the paper's formula as printed.
    pub fixed_loss: Decibels,
    /// Distances below this count as this: distance^(−α) has no meaning at the antenna itself.
    pub reference_distance: Metres,
    /// Whether the channel fades.
    pub fading: Fading,
    /// ρ: the correlation of the complex channel gain from one coherence interval to the next, in [0, 1).
    pub fading_memory: f64,
    /// How long a channel gain holds.
    pub coherence_time: Interval,
    /// The highest spectral efficiency that modulation and coding reach, bit/s/Hz; `"none"` for Eq. 7–8 uncapped.
    pub se_max: OrNone<f64>,
    /// Transmit power by role.
    pub power: Powers,
    /// Interference from outside the cell, by receiver.
    pub interference: Interference,
    /// The band between users and their BS.
    pub access: AccessBand,
}

impl Default for Radio {
    fn default() -> Self {
        Self {
            subchannels: 10,
            bandwidth: Hertz::new(30e6),
            noise_density: DbmPerHz::new(-174.0),
            path_loss_exponent: 3.5,
            fixed_loss: Decibels::new(30.0),
            reference_distance: Metres::new(1.0),
            fading: Fading::None,
            fading_memory: 0.9,
            coherence_time: Interval::from_millis(1000),
            se_max: OrNone::Some(7.4),
            power: Powers::default(),
            interference: Interference::default(),
            access: AccessBand::default(),
        }
    }
}

/// `radio.fading`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fading {
    /// The channel gain h is 1.
    None,
    /// |h| is Rayleigh distributed with mean power 1, correlated from one coherence interval to the next.
    Rayleigh,
}

/// `[radio.power]`: transmit power on each subchannel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Powers {
    /// The MBS towards its BSs, P^D.
    pub mbs: Dbm,
    /// A BS towards the MBS, P^U, and towards its users.
    pub bs: Dbm,
    /// A user towards its BS.
    pub user: Dbm,
}

impl Default for Powers {
    fn default() -> Self {
        // The MBS and BS as the paper has them; 23 dBm is 3GPP's power class 3, an ordinary handset.
        Self { mbs: Dbm::new(42.0), bs: Dbm::new(34.0), user: Dbm::new(23.0) }
    }
}

/// `[radio.interference]`: power received on each subchannel from other cells, N′ and N″ of Eq. 7–8.
///
/// (18c) makes a cell's own subchannels orthogonal, so nothing inside the cell interferes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Interference {
    /// At the MBS, from other cells' BSs (Eq. 7).
    pub uplink: OrNone<Dbm>,
    /// At each BS, from other cells' MBSs (Eq. 8).
    pub downlink: OrNone<Dbm>,
    /// At both ends of the access links, from other cells' users and BSs.
    pub access: OrNone<Dbm>,
}

/// `[radio.access]`: the band in which a BS and its users speak, one in each direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessBand {
    /// The bandwidth in each direction, shared in equal times by the users that a BS serves.
    pub bandwidth: Hertz,
}

impl Default for AccessBand {
    fn default() -> Self {
        // A common carrier width in LTE and NR.
        Self { bandwidth: Hertz::new(20e6) }
    }
}
