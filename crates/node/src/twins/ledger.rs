//! Who owns which twin, as one BS knows it: a state machine without clock, sockets or files. See the [module](super) for the
//! protocol.

mod trust;

use std::collections::BTreeMap;

use dtwn_proto::node::{Manifest, TwinMessage};
use serde::{Deserialize, Serialize};

/// Twins that a BS offers at a time: their bytes are in memory.
const OUTGOING_MAX: usize = 4;
/// Twins that a BS fetches at a time from owners that still could take them back.
const INCOMING_MAX: usize = 16;
/// No twin has had so many owners: such a number is a lie.
const EPOCH_MAX: u64 = 1 << 48;

/// What a BS has to do with a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Custody {
    /// It is not the owner.
    Elsewhere {
        /// To whom it gave the twin, when it was.
        gave_to: Option<u16>,
    },
    /// It is the owner, and trains the twin from this round on.
    Owner {
        /// The round.
        from_round: u64,
    },
    /// It has let go; the new owner has not answered yet.
    Granted {
        /// The new owner.
        to: u16,
        /// The first round in which the new owner trains it.
        from_round: u64,
    },
}

/// A twin as this BS knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The epoch in which this BS was its owner last; 0 for never.
    pub epoch: u64,
    /// What it has to do with it now.
    pub custody: Custody,
}

/// What a BS has told another about a twin that this one offers or has granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pact {
    /// For which epoch.
    pub epoch: u64,
    /// Whether it took the twin; if not, it told that it has all of it, so that the other may be bound by now.
    pub taken: bool,
}

/// What must be on disk before anything that follows from it is sent or trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The last round that this BS has opened.
    pub round: u64,
    /// By twin.
    pub entries: Vec<Entry>,
    /// By twin and the BS whose it was: what it may rely on. Without it, nobody could tell a Grant that is due from any other.
    #[serde(default)]
    pub pacts: BTreeMap<u32, BTreeMap<u16, Pact>>,
}

impl Durable {
    /// At the beginning of a run, at the BS `me`: it owns the twins that `owners` gives it.
    #[must_use]
    pub fn first(me: u16, owners: &[Option<u16>]) -> Self {
        let entry = |owner: &Option<u16>| match *owner == Some(me) {
            true => Entry { epoch: 1, custody: Custody::Owner { from_round: 0 } },
            false => Entry { epoch: 0, custody: Custody::Elsewhere { gave_to: None } },
        };
        Self { round: 0, entries: owners.iter().map(entry).collect(), pacts: BTreeMap::new() }
    }

    /// For a run that goes on from the model of an earlier round: the next one is not begun, and whoever owns a twin trains it there.
    /// Else nobody would train one that moved in a round which is done again.
    pub fn rewind(&mut self, round: u64) {
        self.round = self.round.min(round);
        for entry in &mut self.entries {
            if let Custody::Owner { from_round } | Custody::Granted { from_round, .. } = &mut entry.custody {
                *from_round = (*from_round).min(round + 1);
            }
        }
    }

    /// Whether something of a twin is here that is still needed.
    #[must_use]
    pub fn keeps(&self, twin: u32) -> bool {
        let entry = self.entries.get(twin as usize);
        entry.is_some_and(|entry| !matches!(entry.custody, Custody::Elsewhere { .. }))
    }
}

/// What the ledger wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write [`Ledger::durable`] to disk. What follows must not be done before that.
    Save,
    /// Send to another BS.
    Send(u16, TwinMessage),
    /// Find out what a twin that is ours consists of, and call [`Ledger::prepared`].
    Prepare(u32),
    /// Fetch a twin, keep it on disk, and call [`Ledger::fetched`].
    Fetch {
        /// The twin.
        twin: u32,
        /// For which epoch.
        epoch: u64,
        /// From whom.
        from: u16,
        /// What.
        manifest: Manifest,
    },
    /// Give up fetching a twin. Where it is not [kept](Ledger::keeps), nothing of it is needed here.
    Abandon(u32),
    /// Nothing that was prepared to give a twin away is needed.
    Withdraw(u32),
    /// A twin is ours now.
    Took {
        /// The twin.
        twin: u32,
        /// Whose it was.
        from: u16,
        /// Since when.
        epoch: u64,
        /// The first round in which we train it.
        from_round: u64,
    },
    /// The new owner has confirmed: nothing of the twin is needed here.
    Gone(u32),
}

/// A twin on its way here.
#[derive(Debug, Clone, Copy)]
struct Incoming {
    from: u16,
    epoch: u64,
    manifest: Manifest,
    complete: bool,
    /// The first round, where the old owner has let go already.
    granted: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    me: u16,
    stations: u16,
    durable: Durable,
    /// The owners of epoch 1.
    first: Vec<Option<u16>>,
    targets: Vec<Option<u16>>,
    /// The round of the association that has these targets.
    since: u64,
    /// Twins to be given; without a manifest while that is prepared.
    outgoing: BTreeMap<u32, Option<Manifest>>,
    incoming: BTreeMap<u32, Incoming>,
}

impl Ledger {
    /// The ledger of BS `me` of `stations`, from what is on disk and the owners at the beginning of the run. Until
    /// [`Ledger::retarget`] nothing is to move.
    #[must_use]
    pub fn new(me: u16, stations: u16, durable: Durable, first: Vec<Option<u16>>) -> Self {
        let targets = vec![None; durable.entries.len()];
        let (outgoing, incoming) = (BTreeMap::new(), BTreeMap::new());
        Self { me, stations, durable, first, targets, since: 0, outgoing, incoming }
    }

    /// What must be kept on disk.
    #[must_use]
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Whether a twin is ours.
    #[must_use]
    pub fn owns(&self, twin: u32) -> bool {
        self.entry(twin).is_some_and(|entry| matches!(entry.custody, Custody::Owner { .. }))
    }

    /// The twins that are ours.
    pub fn owned(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.durable.entries)
            .filter(|(_, entry)| matches!(entry.custody, Custody::Owner { .. }))
            .map(|(twin, _)| twin)
    }

    /// Twins of which something is here that is still needed.
    pub fn kept(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).take(self.durable.entries.len()).filter(|twin| self.keeps(*twin))
    }

    /// Whether something of a twin is here that is still needed.
    #[must_use]
    pub fn keeps(&self, twin: u32) -> bool {
        self.durable.keeps(twin)
    }

    /// Whether a twin is being given away: what [`Effect::Prepare`] asked for is wanted.
    #[must_use]
    pub fn is_leaving(&self, twin: u32) -> bool {
        self.outgoing.contains_key(&twin)
    }

    /// The twins that this BS trains in a round.
    pub fn trains(&self, round: u64) -> impl Iterator<Item = u32> + '_ {
        let ours = move |custody| matches!(custody, Custody::Owner { from_round } if from_round <= round);
        (0..).zip(&self.durable.entries).filter(move |(_, entry)| ours(entry.custody)).map(|(twin, _)| twin)
    }

    /// The BS that has a twin, and since which epoch, as far as this one knows.
    #[must_use]
    pub fn serving(&self, twin: u32) -> Option<(u16, u64)> {
        let Entry { epoch, custody } = *self.entry(twin)?;
        match custody {
            Custody::Owner { .. } => Some((self.me, epoch)),
            // About to be ours: its user comes here first, sometimes.
            _ if self.incoming.contains_key(&twin) => Some((self.me, epoch)),
            Custody::Granted { to, .. } | Custody::Elsewhere { gave_to: Some(to) } => Some((to, epoch + 1)),
            Custody::Elsewhere { gave_to: None } => None,
        }
    }

    /// Whether a twin is ours, or should be soon.
    #[must_use]
    pub fn concerns(&self, twin: u32) -> bool {
        self.owns(twin) || self.incoming.contains_key(&twin) || self.target(twin) == Some(self.me)
    }

    /// What an owner, or one that has let go, may still be asked for.
    #[must_use]
    pub fn gives(&self, twin: u32, to: u16, epoch: u64) -> bool {
        let Some(entry) = self.entry(twin) else { return false };
        let bound = match entry.custody {
            Custody::Owner { .. } => self.target(twin),
            Custody::Granted { to, .. } => Some(to),
            Custody::Elsewhere { .. } => None,
        };
        bound == Some(to) && epoch == entry.epoch + 1
    }

    fn entry(&self, twin: u32) -> Option<&Entry> {
        self.durable.entries.get(twin as usize)
    }

    fn target(&self, twin: u32) -> Option<u16> {
        self.targets.get(twin as usize).copied().flatten()
    }

    /// A round begins: from here on it counts as trained.
    pub fn opened(&mut self, round: u64) -> Vec<Effect> {
        if round <= self.durable.round {
            return Vec::new();
        }
        self.durable.round = round;
        vec![Effect::Save]
    }

    /// The association in force, with its round: who should have each twin; `None` for one that stays where it is.
    pub fn retarget(&mut self, round: u64, targets: &[Option<u16>]) -> Vec<Effect> {
        self.since = self.since.max(round);
        self.targets
            .iter_mut()
            .zip(targets)
            .for_each(|(ours, new)| *ours = new.filter(|bs| *bs < self.stations));
        let (me, targets, entries) = (self.me, &self.targets, &self.durable.entries);
        let target = |twin: &u32| targets.get(*twin as usize).copied().flatten();
        let mut effects = Vec::new();
        self.outgoing.retain(|twin, _| {
            let bound = entries.get(*twin as usize).map(|entry| entry.custody);
            let due =
                matches!(bound, Some(Custody::Granted { .. })) || target(twin).is_some_and(|bs| bs != me);
            effects.extend((!due).then_some(Effect::Withdraw(*twin)));
            due
        });
        let given_up: Vec<u32> = self
            .incoming
            .iter()
            .filter(|(twin, incoming)| incoming.granted.is_none() && target(twin) != Some(me))
            .map(|(twin, _)| *twin)
            .collect();
        for twin in given_up {
            self.incoming.remove(&twin);
            effects.push(Effect::Abandon(twin));
        }
        effects.extend(self.fill());
        effects
    }

    /// Begins to give away what should be elsewhere, as far as there is room.
    fn fill(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (twin, entry) in (0..).zip(&self.durable.entries) {
            let elsewhere =
                || self.targets.get(twin as usize).copied().flatten().is_some_and(|bs| bs != self.me);
            let due = match entry.custody {
                Custody::Owner { .. } => elsewhere() && self.outgoing.len() < OUTGOING_MAX,
                Custody::Granted { .. } => true,
                Custody::Elsewhere { .. } => false,
            };
            if due && !self.outgoing.contains_key(&twin) {
                self.outgoing.insert(twin, None);
                effects.push(Effect::Prepare(twin));
            }
        }
        effects
    }

    /// What a twin consists of that [`Effect::Prepare`] asked about; `None` when that could not be found out, and is to be tried
    /// again later.
    pub fn prepared(&mut self, twin: u32, manifest: Option<Manifest>) -> Vec<Effect> {
        match (self.outgoing.get_mut(&twin), manifest) {
            (Some(outgoing), Some(manifest)) => {
                *outgoing = Some(manifest);
                self.announce(twin).into_iter().collect()
            }
            (Some(_), None) => {
                self.outgoing.remove(&twin);
                Vec::new()
            }
            (None, _) => Vec::new(),
        }
    }

    /// The Offer or Grant of a twin that is prepared.
    fn announce(&self, twin: u32) -> Option<Effect> {
        let manifest = (*self.outgoing.get(&twin)?)?;
        let Entry { epoch, custody } = *self.entry(twin)?;
        let epoch = epoch + 1;
        match custody {
            Custody::Owner { .. } => {
                let to = self.target(twin).filter(|to| *to != self.me)?;
                Some(Effect::Send(to, TwinMessage::Offer { twin, epoch, manifest }))
            }
            Custody::Granted { to, from_round } => {
                let state = None;
                Some(Effect::Send(to, TwinMessage::Grant { twin, epoch, from_round, manifest, state }))
            }
            Custody::Elsewhere { .. } => None,
        }
    }

    /// Says again what has not been answered. To be called now and then.
    pub fn tick(&mut self) -> Vec<Effect> {
        let mut effects: Vec<Effect> = self.outgoing.keys().filter_map(|twin| self.announce(*twin)).collect();
        for (twin, incoming) in &self.incoming {
            if incoming.complete && incoming.granted.is_none() {
                effects.push(have(*twin, incoming));
            }
        }
        effects.extend(self.fill());
        effects
    }

    /// All of a twin that [`Effect::Fetch`] asked for is here and on disk.
    pub fn fetched(&mut self, twin: u32, epoch: u64) -> Vec<Effect> {
        let Some(incoming) = self.incoming.get_mut(&twin).filter(|incoming| incoming.epoch == epoch) else {
            return Vec::new();
        };
        incoming.complete = true;
        let incoming = *incoming;
        match incoming.granted {
            Some(from_round) => self.become_owner(twin, from_round),
            None => {
                let pact = Pact { epoch, taken: false };
                let before = self.durable.pacts.entry(twin).or_default().insert(incoming.from, pact);
                let mut effects = Vec::new();
                effects.extend((before != Some(pact)).then_some(Effect::Save));
                effects.push(have(twin, &incoming));
                effects
            }
        }
    }

    /// A message of another BS. One that makes no sense here changes nothing.
    pub fn take(&mut self, from: u16, message: &TwinMessage) -> Vec<Effect> {
        let strange = |twin: u32, epoch: u64| {
            from >= self.stations
                || from == self.me
                || self.entry(twin).is_none()
                || !(2..=EPOCH_MAX).contains(&epoch)
        };
        match *message {
            TwinMessage::Offer { twin, epoch, manifest } if !strange(twin, epoch) => {
                self.offered(from, twin, epoch, manifest)
            }
            TwinMessage::Have { twin, epoch, data } if !strange(twin, epoch) => {
                self.is_had(from, twin, epoch, data)
            }
            TwinMessage::Grant { twin, epoch, from_round, manifest, .. } if !strange(twin, epoch) => {
                self.granted(from, twin, epoch, from_round, manifest)
            }
            TwinMessage::Taken { twin, epoch } if !strange(twin, epoch) => self.is_taken(from, twin, epoch),
            _ => Vec::new(),
        }
    }

    fn offered(&mut self, from: u16, twin: u32, epoch: u64, manifest: Manifest) -> Vec<Effect> {
        // Our own association may be behind or ahead of the owner's; it will offer again.
        let wanted = self.target(twin) == Some(self.me);
        if !wanted || !self.may_offer(from, twin, epoch) {
            return Vec::new();
        }
        match self.incoming.get(&twin) {
            Some(known) if known.granted.is_some() || known.epoch > epoch => Vec::new(),
            Some(known) if (known.from, known.epoch, known.manifest) == (from, epoch, manifest) => {
                if known.complete { vec![have(twin, known)] } else { Vec::new() }
            }
            None if self.incoming.len() >= INCOMING_MAX => Vec::new(),
            _ => self.fetch(Incoming { from, epoch, manifest, complete: false, granted: None }, twin),
        }
    }

    fn fetch(&mut self, incoming: Incoming, twin: u32) -> Vec<Effect> {
        let Incoming { from, epoch, manifest, .. } = incoming;
        self.incoming.insert(twin, incoming);
        vec![Effect::Fetch { twin, epoch, from, manifest }]
    }

    /// The next owner has all: we let go, if it still is to be the next owner.
    fn is_had(&mut self, from: u16, twin: u32, epoch: u64, data: [u8; 32]) -> Vec<Effect> {
        let (round, target) = (self.durable.round, self.target(twin));
        let offered = self.outgoing.get(&twin).copied().flatten();
        let Some(entry) = self.durable.entries.get_mut(twin as usize) else { return Vec::new() };
        if epoch != entry.epoch + 1 {
            return Vec::new();
        }
        match entry.custody {
            Custody::Owner { from_round }
                if target == Some(from) && offered.is_some_and(|m| m.data == data) =>
            {
                // Nobody trains it before we were to, should we never have.
                let from_round = from_round.max(round + 1);
                entry.custody = Custody::Granted { to: from, from_round };
                let mut effects = vec![Effect::Save];
                effects.extend(self.announce(twin));
                effects
            }
            Custody::Granted { to, .. } if to == from => self.announce(twin).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn granted(
        &mut self,
        from: u16,
        twin: u32,
        epoch: u64,
        from_round: u64,
        manifest: Manifest,
    ) -> Vec<Effect> {
        if self.pact(twin, from) == Some(Pact { epoch, taken: true }) {
            return vec![Effect::Send(from, TwinMessage::Taken { twin, epoch })];
        }
        if !self.expects(from, twin, epoch) {
            // No answer: whoever grants keeps the twin until it is taken, and what it has may be the only good copy.
            tracing::warn!(
                twin,
                from,
                epoch,
                "refused a twin: it was not offered before, or is ours already"
            );
            return Vec::new();
        }
        match self.incoming.get_mut(&twin) {
            // An owner that was restarted may have less to give than it offered.
            Some(known)
                if known.from == from
                    && known.epoch == epoch
                    && (known.complete || known.manifest == manifest) =>
            {
                known.granted = Some(from_round);
                if known.complete { self.become_owner(twin, from_round) } else { Vec::new() }
            }
            Some(known) if known.granted.is_some() && known.epoch > epoch => Vec::new(),
            // We were restarted, or wanted no more of it: but now it is ours, and nobody else's.
            _ => self
                .fetch(Incoming { from, epoch, manifest, complete: false, granted: Some(from_round) }, twin),
        }
    }

    fn become_owner(&mut self, twin: u32, from_round: u64) -> Vec<Effect> {
        let (Some(Incoming { from, epoch, .. }), Some(entry)) =
            (self.incoming.remove(&twin), self.durable.entries.get_mut(twin as usize))
        else {
            return Vec::new();
        };
        *entry = Entry { epoch, custody: Custody::Owner { from_round } };
        let pacts = self.durable.pacts.entry(twin).or_default();
        pacts.retain(|_, pact| pact.taken || pact.epoch > epoch);
        pacts.insert(from, Pact { epoch, taken: true });
        let taken = TwinMessage::Taken { twin, epoch };
        let mut effects = vec![Effect::Save, Effect::Took { twin, from, epoch, from_round }];
        // It came back before we heard that it had arrived where it went.
        effects.extend(self.outgoing.remove(&twin).map(|_| Effect::Withdraw(twin)));
        effects.push(Effect::Send(from, taken));
        effects
    }

    fn is_taken(&mut self, from: u16, twin: u32, epoch: u64) -> Vec<Effect> {
        let Some(entry) = self.durable.entries.get_mut(twin as usize) else { return Vec::new() };
        match entry.custody {
            Custody::Granted { to, .. } if to == from && epoch == entry.epoch + 1 => {
                entry.custody = Custody::Elsewhere { gave_to: Some(to) };
                self.outgoing.remove(&twin);
                // What is here may be that of a later epoch, when the twin is on its way back.
                let needed = self.incoming.contains_key(&twin);
                vec![Effect::Save, if needed { Effect::Withdraw(twin) } else { Effect::Gone(twin) }]
            }
            _ => Vec::new(),
        }
    }
}

fn have(twin: u32, incoming: &Incoming) -> Effect {
    let Incoming { from, epoch, manifest, .. } = *incoming;
    Effect::Send(from, TwinMessage::Have { twin, epoch, data: manifest.data })
}

#[cfg(test)]
mod tests;
