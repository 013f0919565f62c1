//! The replicated state and the rules by which blocks change it.
//!
//! Whether a block is valid depends on nothing but the block and the state after its parent: no clock, no bodies,
//! nothing local. Coins are conserved: what accounts hold plus what penalties burned equals what genesis gave plus
//! what awards minted.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::block::{Block, Header};
use crate::codec::{Decode, Encode, Reader, encoded_fields, put_count, put_sequence};
use crate::election::{Ballot, ProducerSet, elect};
use crate::error::{Error, Result};
use crate::genesis::Registry;
use crate::models::{ModelRecord, ModelStatus};
use crate::replay::ReplayWindow;
use crate::tx::{Payload, SharedTransaction, Transaction};
use crate::types::{Digest, Epoch, Height, MicroCoins, ReplicaId, View};
use crate::vote::{Evidence, MAX_PRODUCERS};

/// Training models remembered per account; older ones can no longer be attested or awarded.
pub const MODELS_KEPT: usize = 8;

/// One base station's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Coins held.
    pub coins: MicroCoins,
    /// Candidate that the coins vote for.
    pub delegate: ReplicaId,
    /// Views led in the current epoch, up to the last block.
    pub turns: u64,
    /// Of these, views that left no block in the chain.
    pub missed: u64,
    /// Views missed over all epochs.
    pub missed_total: u64,
    /// Sequence numbers used.
    pub replay: ReplayWindow,
    /// The latest training models, oldest first.
    pub models: VecDeque<ModelRecord>,
}

impl Account {
    /// The model of a round, if still remembered.
    #[must_use]
    pub fn model(&self, round: u64) -> Option<&ModelRecord> {
        self.models.iter().find(|model| model.round == round)
    }
}

/// The state after a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Epoch that the next block belongs to.
    pub epoch: Epoch,
    /// Height of the last block.
    pub height: Height,
    /// View of the last block, 0 when the next one is the first of its epoch.
    pub view: View,
    /// Digest of the last block.
    pub block: Digest,
    /// Producers of `epoch`.
    pub producers: Arc<ProducerSet>,
    /// Accounts; `accounts[i]` is that of `ReplicaId(i)`.
    pub accounts: Vec<Arc<Account>>,
    /// Offences punished in this epoch and the one before.
    pub offences: Arc<BTreeSet<(Epoch, View, ReplicaId)>>,
    /// Coins that genesis gave.
    pub initial: MicroCoins,
    /// Coins that awards added.
    pub minted: MicroCoins,
    /// Coins that penalties removed.
    pub burned: MicroCoins,
}

impl State {
    /// The state that a chain starts from; the genesis block's digest is the chain's identifier.
    #[must_use]
    pub fn genesis(registry: &Registry) -> Self {
        let genesis = registry.genesis();
        let accounts: Vec<_> = (0u16..)
            .zip(&genesis.validators)
            .map(|(id, validator)| {
                Arc::new(Account {
                    coins: validator.coins,
                    delegate: ReplicaId(id),
                    turns: 0,
                    missed: 0,
                    missed_total: 0,
                    replay: ReplayWindow::default(),
                    models: VecDeque::new(),
                })
            })
            .collect();
        let producers = elect(0, &ballots(&accounts), usize::from(genesis.params.producers));
        Self {
            epoch: 0,
            height: 0,
            view: 0,
            block: *registry.chain(),
            producers: Arc::new(producers),
            initial: genesis.validators.iter().map(|validator| validator.coins).sum(),
            accounts,
            offences: Arc::default(),
            minted: 0,
            burned: 0,
        }
    }

    /// A base station's account.
    #[must_use]
    pub fn account(&self, id: ReplicaId) -> Option<&Account> {
        self.accounts.get(id.index()).map(Arc::as_ref)
    }

    /// Digest of the state, as block headers carry it.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut bytes = Vec::with_capacity(256 + self.accounts.len() * 600);
        self.encode_accounts(&mut bytes);
        Digest::in_domain("state", &bytes)
    }

    /// True when coins held plus burned equal coins given plus minted.
    #[must_use]
    pub fn conserves_coins(&self) -> bool {
        let held: u128 = self.accounts.iter().map(|account| u128::from(account.coins)).sum();
        held + u128::from(self.burned) == u128::from(self.initial) + u128::from(self.minted)
    }

    /// True when a block at `height` ends its epoch.
    #[must_use]
    pub fn is_boundary(registry: &Registry, height: Height) -> bool {
        height > 0 && height.is_multiple_of(registry.params().epoch_blocks)
    }

    /// Executes `block` on this state and checks that it is valid, except for transaction signatures, which are
    /// checked by [`Registry::verify_transactions`] unless a quorum already vouched for them.
    ///
    /// # Errors
    /// [`Error::Block`] naming what is wrong.
    pub fn apply(&self, registry: &Registry, block: &Block) -> Result<Self> {
        let fail =
            |reason: String| Error::Block { digest: block.digest(), height: block.header().height, reason };
        let header = block.header();
        self.check_header(registry, header).map_err(fail)?;
        let (bytes, most) = (block.body_bytes(), registry.params().max_block_bytes as usize);
        if bytes > most {
            return Err(fail(format!("{bytes} bytes of transactions, at most {most}")));
        }
        let mut next = self.begin(header.view, header.leader);
        for transaction in block.transactions() {
            next.execute(registry, transaction).map_err(|error| fail(error.to_string()))?;
        }
        next.end(registry);
        if next.root() != header.state {
            return Err(fail("its header names another state".into()));
        }
        next.block = block.digest();
        Ok(next)
    }

    /// Builds the block of `view` from those of `candidates` that are valid, in order, up to the size bound. Returns
    /// the block and the state after it.
    #[must_use]
    pub fn build(
        &self,
        registry: &Registry,
        view: View,
        candidates: impl IntoIterator<Item = SharedTransaction>,
    ) -> (Block, Self) {
        let leader = self.producers.leader(view);
        let mut next = self.begin(view, leader);
        let mut room = registry.params().max_block_bytes as usize;
        let mut transactions = Vec::new();
        for transaction in candidates {
            let bytes = transaction.encoded_len();
            if bytes <= room && next.execute(registry, &transaction).is_ok() {
                room -= bytes;
                transactions.push(transaction);
            }
        }
        next.end(registry);
        let header = Header {
            chain: *registry.chain(),
            epoch: self.epoch,
            view,
            height: self.height + 1,
            parent: self.block,
            leader,
            transactions: Block::root(&transactions),
            state: next.root(),
        };
        let block = Block::new(header, transactions);
        next.block = block.digest();
        (block, next)
    }

    fn check_header(&self, registry: &Registry, header: &Header) -> std::result::Result<(), String> {
        if header.chain != *registry.chain() {
            return Err("belongs to another chain".into());
        }
        if header.parent != self.block || header.height != self.height + 1 {
            return Err(format!("does not follow block {} at height {}", self.block, self.height));
        }
        if header.epoch != self.epoch {
            return Err(format!(
                "is of epoch {}, its parent's successor is of epoch {}",
                header.epoch, self.epoch
            ));
        }
        if header.view <= self.view {
            return Err(format!("is of view {}, its parent of view {}", header.view, self.view));
        }
        let leader = self.producers.leader(header.view);
        if header.leader != leader {
            return Err(format!("is by {}, view {} is led by {leader}", header.leader, header.view));
        }
        Ok(())
    }

    /// Opens a block: counts turns, and as misses the views skipped since the parent.
    fn begin(&self, view: View, leader: ReplicaId) -> Self {
        let mut next = self.clone();
        let skipped = self.view + 1..view;
        for &member in &self.producers.members {
            let missed = self.producers.turns_of(member, skipped.start, skipped.end.saturating_sub(1));
            let turns = missed + u64::from(member == leader);
            if turns > 0
                && let Some(account) = next.account_mut(member)
            {
                account.turns += turns;
                account.missed += missed;
                account.missed_total += missed;
            }
        }
        next.height += 1;
        next.view = view;
        next
    }

    /// Closes a block; a boundary block elects the next epoch's producers.
    fn end(&mut self, registry: &Registry) {
        if !Self::is_boundary(registry, self.height) {
            return;
        }
        self.epoch += 1;
        self.view = 0;
        self.producers =
            Arc::new(elect(self.epoch, &ballots(&self.accounts), usize::from(registry.params().producers)));
        for account in &mut self.accounts {
            if account.turns > 0 {
                let account = Arc::make_mut(account);
                (account.turns, account.missed) = (0, 0);
            }
        }
        // Evidence of older epochs is no longer admissible, so its offences need not be remembered.
        let oldest = self.epoch.saturating_sub(1);
        if self.offences.iter().any(|offence| offence.0 < oldest) {
            Arc::make_mut(&mut self.offences).retain(|offence| offence.0 >= oldest);
        }
    }

    fn account_mut(&mut self, id: ReplicaId) -> Option<&mut Account> {
        self.accounts.get_mut(id.index()).map(Arc::make_mut)
    }

    /// Executes one transaction, all or nothing.
    ///
    /// # Errors
    /// [`Error::Transaction`] naming why it is not valid here.
    pub fn execute(&mut self, registry: &Registry, transaction: &Transaction) -> Result<()> {
        let fail = |reason: String| Error::Transaction {
            signer: transaction.signer,
            sequence: transaction.sequence,
            reason,
        };
        let account = self.account(transaction.signer).ok_or_else(|| fail("unknown signer".into()))?;
        if !account.replay.is_fresh(transaction.sequence) {
            return Err(fail(format!(
                "sequence number is not fresh, the highest is {}",
                account.replay.highest()
            )));
        }
        self.execute_payload(registry, transaction).map_err(fail)?;
        if let Some(account) = self.account_mut(transaction.signer) {
            account.replay.use_up(transaction.sequence);
        }
        Ok(())
    }

    fn execute_payload(&mut self, registry: &Registry, tx: &Transaction) -> std::result::Result<(), String> {
        match &tx.payload {
            // Records for readers of the chain; they change no account.
            Payload::TwinModel { .. } | Payload::TwinData { .. } | Payload::Action { .. } => Ok(()),
            Payload::TrainingModel { round, body } => {
                let record = ModelRecord::new(*round, *body, tx.signer, &self.producers);
                let account = self.account_mut(tx.signer).ok_or("unknown signer")?;
                if let Some(last) = account.models.back().filter(|last| last.round >= *round) {
                    return Err(format!("round {round} does not follow the signer's round {}", last.round));
                }
                account.models.push_back(record);
                if account.models.len() > MODELS_KEPT {
                    account.models.pop_front();
                }
                Ok(())
            }
            Payload::Attestation { owner, round, digest, verdict } => {
                self.model_mut(*owner, *round)?.attest(tx.signer, digest, *verdict)
            }
            Payload::Delegation { candidate } => {
                self.account(*candidate).ok_or_else(|| format!("no candidate {candidate}"))?;
                self.account_mut(tx.signer).ok_or("unknown signer")?.delegate = *candidate;
                Ok(())
            }
            Payload::Award { owner, round, amount } => self.award(registry, *owner, *round, *amount),
            Payload::Evidence(evidence) => self.punish(registry, evidence),
        }
    }

    fn model_mut(&mut self, owner: ReplicaId, round: u64) -> std::result::Result<&mut ModelRecord, String> {
        // Looked up before the account is copied for writing.
        let known = self.account(owner).is_some_and(|account| account.model(round).is_some());
        self.account_mut(owner)
            .filter(|_| known)
            .and_then(|account| account.models.iter_mut().find(|model| model.round == round))
            .ok_or_else(|| format!("no training model of {owner} for round {round}"))
    }

    fn award(
        &mut self,
        registry: &Registry,
        owner: ReplicaId,
        round: u64,
        amount: MicroCoins,
    ) -> std::result::Result<(), String> {
        if amount != registry.params().award {
            return Err(format!("awards {amount} micro-coins, the award is {}", registry.params().award));
        }
        let minted =
            self.minted.checked_add(amount).filter(|minted| minted.checked_add(self.initial).is_some());
        let minted = minted.ok_or("the supply does not fit in 64 bits")?;
        let model = self.model_mut(owner, round)?;
        if model.status != ModelStatus::Passed {
            return Err(format!("the model is {}, only a passed one earns coins", model.status));
        }
        model.status = ModelStatus::Awarded;
        self.minted = minted;
        if let Some(account) = self.account_mut(owner) {
            account.coins += amount;
        }
        Ok(())
    }

    /// Why evidence would not be accepted on this state, its signatures aside.
    pub(crate) fn refuses_evidence(&self, evidence: &Evidence) -> Option<&'static str> {
        let (epoch, _, offender) = evidence.offence();
        if let Err(reason) = evidence.check_shape() {
            return Some(reason);
        }
        if epoch > self.epoch || epoch + 1 < self.epoch {
            return Some("the offence is of neither this epoch nor the last");
        }
        if self.offences.contains(&evidence.offence()) {
            return Some("the offence has been punished");
        }
        // Also what bounds the memory of offences: one entry per penalty paid.
        if self.account(offender).is_none_or(|account| account.coins == 0) {
            return Some("the offender has no coins");
        }
        None
    }

    /// True when `payload` is not valid here and can never become so.
    #[must_use]
    pub fn is_hopeless(&self, signer: ReplicaId, payload: &Payload) -> bool {
        let model =
            |owner: ReplicaId, round: u64| self.account(owner).and_then(|account| account.model(round));
        match payload {
            Payload::Evidence(evidence) => {
                evidence.offence().0 <= self.epoch && self.refuses_evidence(evidence).is_some()
            }
            Payload::Award { owner, round, .. } => model(*owner, *round)
                .is_none_or(|model| matches!(model.status, ModelStatus::Awarded | ModelStatus::Failed)),
            Payload::TrainingModel { round, .. } => self
                .account(signer)
                .and_then(|account| account.models.back())
                .is_some_and(|last| last.round >= *round),
            Payload::Attestation { owner, round, .. } => model(*owner, *round)
                .is_some_and(|model| model.passed.contains(&signer) || model.failed.contains(&signer)),
            _ => false,
        }
    }

    fn punish(&mut self, registry: &Registry, evidence: &Evidence) -> std::result::Result<(), String> {
        if let Some(reason) = self.refuses_evidence(evidence) {
            return Err(reason.into());
        }
        if !registry.verify_evidence(evidence) {
            return Err("a vote's signature is not valid".into());
        }
        let (_, _, offender) = evidence.offence();
        let account = self.account_mut(offender).ok_or("unknown offender")?;
        let penalty = registry.params().penalty.min(account.coins);
        account.coins -= penalty;
        self.burned += penalty;
        Arc::make_mut(&mut self.offences).insert(evidence.offence());
        Ok(())
    }

    fn encode_accounts(&self, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        self.height.encode(out);
        self.view.encode(out);
        self.producers.encode(out);
        put_sequence(out, &self.accounts);
        put_count(out, self.offences.len());
        for (epoch, view, offender) in self.offences.iter() {
            epoch.encode(out);
            view.encode(out);
            offender.encode(out);
        }
        self.initial.encode(out);
        self.minted.encode(out);
        self.burned.encode(out);
    }
}

fn ballots(accounts: &[Arc<Account>]) -> Vec<Ballot> {
    accounts
        .iter()
        .map(|account| Ballot {
            coins: account.coins,
            delegate: account.delegate,
            turns: account.turns,
            missed: account.missed,
        })
        .collect()
}

encoded_fields!(Account { coins, delegate, turns, missed, missed_total, replay, models });

impl Encode for VecDeque<ModelRecord> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.len());
        self.iter().for_each(|model| model.encode(out));
    }
}

impl Decode for VecDeque<ModelRecord> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(reader.sequence::<ModelRecord>(MODELS_KEPT, "training models")?.into())
    }
}

/// A state's snapshot: what its root covers, then the last block's digest (which the root cannot cover, since the
/// block's header contains the root).
impl Encode for State {
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode_accounts(out);
        self.block.encode(out);
    }
}

impl Decode for State {
    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (epoch, height, view) = (u64::decode(reader)?, u64::decode(reader)?, u64::decode(reader)?);
        let producers = Arc::decode(reader)?;
        let accounts = reader.sequence(usize::from(u16::MAX), "accounts")?;
        let mut offences = BTreeSet::new();
        for _ in 0..reader.count(usize::MAX, "offences")? {
            offences.insert((u64::decode(reader)?, u64::decode(reader)?, ReplicaId::decode(reader)?));
        }
        let (initial, minted, burned) = (u64::decode(reader)?, u64::decode(reader)?, u64::decode(reader)?);
        let block = Digest::decode(reader)?;
        let offences = Arc::new(offences);
        Ok(Self { epoch, height, view, block, producers, accounts, offences, initial, minted, burned })
    }
}

/// Most accounts whose producers could all attest; keeps model records bounded.
pub(crate) const MAX_VERIFIERS: usize = MAX_PRODUCERS;
