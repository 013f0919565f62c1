//! What a BS believes of others' words about a twin, as far as it can know by itself.

use super::{Custody, Entry, Ledger, Pact};

impl Ledger {
    pub(super) fn pact(&self, twin: u32, with: u16) -> Option<Pact> {
        self.durable.pacts.get(&twin)?.get(&with).copied()
    }

    /// Whether a Grant is due: we have told that BS that we have what it offers for that epoch, and have not taken it. It grants to
    /// nobody who has not, and may do so long after we were restarted or wanted no more of it.
    #[must_use]
    pub fn expects(&self, from: u16, twin: u32, epoch: u64) -> bool {
        self.pact(twin, from) == Some(Pact { epoch, taken: false })
            && !self.owns(twin)
            && self.entry(twin).is_some_and(|entry| entry.epoch < epoch)
    }

    /// Whether a BS may be the owner before `epoch`, as far as we can know. The owner of one epoch is known: whom we gave the twin, or
    /// whom the plan did. Of later epochs we know that there are not more than BSs could change their minds.
    pub(super) fn may_offer(&self, from: u16, twin: u32, epoch: u64) -> bool {
        let Some(Entry { epoch: ours, custody }) = self.entry(twin) else { return false };
        let (known, owner) = match custody {
            // Nobody is owner after us before we have let go.
            Custody::Owner { .. } => return false,
            Custody::Granted { to, .. } | Custody::Elsewhere { gave_to: Some(to) } => (ours + 1, Some(*to)),
            Custody::Elsewhere { gave_to: None } => (1, self.first.get(twin as usize).copied().flatten()),
        };
        // Each owner has learnt of an association before it gives the twin away, and of another one since it came.
        let most = self.since.saturating_mul(self.stations.into()).saturating_add(2);
        // An offer from before the last one that this BS made, and we relied on, is an old one.
        let newest = self.pact(twin, from).is_none_or(|pact| pact.epoch <= epoch);
        let plausible = match epoch.checked_sub(known + 1) {
            None => false,
            Some(0) => owner == Some(from),
            Some(_) => epoch <= most,
        };
        newest && plausible
    }
}
