//! The chain of the base stations: delegated proof of stake for who produces blocks, Simplex (Chan and Pass, "Simplex
//! Consensus: A Simple and Fast Consensus Protocol", TCC 2023) for agreeing on them.
//!
//! Everything that decides is sans-io: [`core::Core`] and [`bodies::Bodies`] take inputs with the time and return
//! effects. Around them are the [`store`] on disk and the simulator in [`sim`]. This text states the protocol; the
//! code refers to its rules by number.
//!
//! # Replicas, producers, quorums
//!
//! The base stations are named in the [`genesis::Genesis`], each with an Ed25519 key and its initial coins
//! (Lu et al. 2020, Eq. 6, [`election::initial_coins`]). Time is divided into **epochs** of
//! `epoch_blocks` blocks. In each epoch M_p ≥ 4 base stations are **producers** with one vote each
//! ([`election::ProducerSet`]); the others, and observers without a key, follow.
//!
//! - f = ⌊(M_p − 1) / 3⌋ producers may be *Byzantine* (do anything that their own keys allow, together).
//! - A **quorum** is M_p − f producers: 3 of 4, 4 of 5, 5 of 7.
//! - (Q1) Two quorums share at least 2(M_p − f) − M_p = M_p − 2f ≥ f + 1 producers, so at least one that follows the
//!   rules. (Q2) The producers that follow the rules, at least M_p − f, are a quorum by themselves.
//!
//! Within an epoch, **views** count from 1; view v is led by `members[v mod M_p]`. Views of different epochs have
//! nothing to do with each other: whatever is signed names epoch and view.
//!
//! # What is signed
//!
//! Everything signed starts with a domain string, the encoding's version and the chain's identifier (the digest of
//! the genesis), and continues with a canonical encoding ([`codec`]): one value, one encoding. So no signature is good
//! for another purpose, version or chain. [`crypto`] says which signatures are valid, and why that does not depend on
//! whether they are checked in batches.
//!
//! | [`vote::Statement`] | says |
//! | --- | --- |
//! | `Notarize(p)` | proposal p is valid and its ancestry certified |
//! | `Nullify(e, v)` | view v of epoch e should be left without a block |
//! | `Finalize(p)` | p is notarized, and this voter has not nullified its view and never will |
//!
//! A [`vote::Proposal`] names epoch, view, parent view, height and block digest. A signed statement is a **vote**; a
//! quorum of votes for one statement of one epoch is a **certificate**: a *notarization*, *nullification* or
//! *finalization*. [`message::Message`] lists what replicas send: proposals (block, the leader's notarize vote, and
//! certificates that justify it), votes, certificates, requests, blocks and segments of the finalized chain in answer,
//! transactions, and messages about bodies.
//!
//! # The rules
//!
//! 1. **Propose.** The leader of view v, once it is in v and the slot has begun, takes the highest view p < v that
//!    is certified with all views between p and v nullified, and proposes a block on p's block, once. View 0 stands for
//!    the last block of the epoch before and is certified by definition, as is the view of the last finalized block.
//! 2. **Notarize.** A producer in view v votes to notarize the first proposal of v that its leader signed if the parent
//!    view is certified (notarized or finalized), every view between is nullified, and the block is valid on the
//!    parent's. At most once per view. It may do so after it voted to nullify v.
//! 3. **Sync first.** A vote, and so a leader's proposal, is written to disk and synced before it is sent or counted
//!    ([`core::Effect::Persist`], [`core::Input::Persisted`]). Records keep their order, so what led to a vote (its
//!    block, the notarization behind a finalize vote) is durable when the vote is. After a restart a replica is bound
//!    by the votes on its disk and counts them again.
//! 4. **Nullify.** A producer in view v votes to nullify it when the view's timer runs out, when the leader or f + 1
//!    producers did, or when the proposal is not valid, unless it has voted to finalize in v.
//! 5. **Finalize.** A producer that holds a notarization of view v votes to finalize it unless it voted to nullify v,
//!    whatever view it is in by now. Rules 4 and 5 together: never both.
//! 6. **Advance.** On any certificate of view v ≥ its own, a replica enters view v + 1. Certificates are assembled from
//!    votes or received; a view may have both a notarization and a nullification.
//! 7. **Commit.** On a finalization, the block and all its ancestors are final. They are executed and join the
//!    finalized chain when all are here; what is missing is asked for.
//! 8. **Epochs.** The block at height k · `epoch_blocks` is its epoch's *boundary block*. On a certified boundary
//!    block only that same block may be proposed, in view after view, until it is final. Only then does the next
//!    epoch begin, in view 1, with the producers that the state after the boundary block elects.
//! 9. **Repeat.** As long as its view does not end, a replica repeats, at intervals, to everybody: the latest
//!    finalization, the certificates that led into the view, its own votes of the view and its finalize votes of
//!    the latest views not yet finalized, and its requests, each time to somebody else. Whoever hears from a replica that
//!    is far behind sends it the certificates that lead on.
//!
//! # Safety
//!
//! *No two replicas finalize different blocks at one height, if at most f producers of each epoch are Byzantine.*
//!
//! (S1) In a view at most one proposal is notarized: two notarizations would share a producer that follows the rules
//! (Q1), which votes to notarize once (rule 2), also across restarts (rule 3). (S2) A view with a finalization has no
//! nullification: by Q1 a producer following the rules would have voted for both, against rules 4 and 5. (S3) Let p
//! be finalized in view v. Every proposal notarized in a view w > v of the epoch descends from p, or proposes p's block
//! again: by induction on w, some producer that follows the rules voted for it, so its parent view u is certified and
//! all views between u and w are nullified. As v is not (S2), u ≥ v. If u = v, the parent is p by S1 (a finalization
//! needs a producer that follows the rules and holds the notarization); if u > v, the parent descends from p by
//! induction. So two finalized blocks of an epoch lie on one chain. (S4) Across epochs: all replicas enter epoch
//! e + 1 from a finalized block at the height of e's boundary, which by S3 is one and the same (a re-proposal is the same
//! block), and its state determines the producers.
//!
//! # Liveness
//!
//! *After the network becomes timely (messages between replicas that follow the rules, repeated, arrive within some
//! Δ, and timeouts have grown beyond a few Δ), blocks are finalized.*
//!
//! (L1) All replicas come to the highest view that any has reached: its entry certificates are repeated (rule 9)
//! until they get on. Certificates in view v that others need for their votes are carried with the proposal or sent
//! on request. (L2) No view lasts for ever. If some producer that follows the rules holds a notarization or
//! nullification of it, L1 applies. Otherwise none voted to finalize, so when their timers run out all of them vote to
//! nullify (rule 4), which is a quorum (Q2). (L3) A view whose leader follows the rules is finalized: its proposal
//! reaches everybody before the timers run out, all can check it (L1), all vote, everybody sees the notarization before
//! the timers run out and votes to finalize. No second good leader is needed: a block is final three message delays
//! after its proposal. (L4) Leaders take turns, so among any f + 1 views in a row one leader follows the rules. (L5)
//! An epoch ends: each view of L3 at its boundary finalizes the boundary block; a replica left in the old epoch is sent
//! the finalization by whoever hears from it.
//!
//! Two details matter for L2. A notarization is durable before the finalize vote that follows from it (rule 3), or a
//! crash of everybody could leave voters who may not nullify and cannot prove why. And rule 2 allows a vote to notarize
//! after one to nullify, so a late proposal is not lost with a view that nobody can nullify any more.
//!
//! The view timer is four round trips of the slower of a quorum and the leader (at most four times the quorum's), half as
//! much again for every view nullified in a row, between two bounds; a leader that has long been silent while others were
//! heard gets less. Where no transactions wait, the leader may take an idle interval before it proposes an empty block,
//! and the others wait that much longer. The slot interval T is a floor on the
//! time between the starts of views; 0 is allowed.
//!
//! # The chain
//!
//! A [`block::Block`]'s header commits to its parent, its transactions (with signatures) and the state after it. Whether
//! a block is valid depends on nothing but the block and its parent's state ([`state::State::apply`]): never on
//! clocks, on bodies or on what a replica happens to have heard.
//!
//! - **Transactions** ([`tx::Payload`]): twin model, twin data, training model, attestation, delegation, award,
//!   evidence, action. Each names its signer and a sequence number from the signer's [`replay::ReplayWindow`], so every
//!   finalized transaction is valid and unique, with bounded memory.
//! - **Coins** decide elections only. Every account's coins vote for its delegate (itself by default); candidates
//!   lose votes in proportion to the turns that they missed. A *miss* is a view of the epoch that left no block in the
//!   finalized chain: the gap between a block's view and its parent's. A training model attested by a quorum earns its owner the
//!   award ([`models`]); two contradicting votes, put together as evidence, cost the offender the penalty, once for each
//!   (offender, epoch, view). Coins held + burned = given + minted, always.
//! - **Bodies** (models, data) are named by BLAKE3 digests, stay outside blocks, and are fetched from whoever
//!   holds them ([`bodies`]). Attestations are about bodies; block validity is not.
//!
//! # Bounds
//!
//! Lengths and counts are checked when decoding, before anything is allocated ([`message`] lists the limits); cheap
//! checks come before signatures, signatures before any change of state. Single votes and proposals are kept for at
//! most [`core::VIEWS_AHEAD`] views ahead and one of each kind for each producer and view; certificates, which cannot be
//! forged, for every view above the finalized chain. Blocks are kept if they are the first proposal of a leader's view or
//! if a certificate names them. Answers to a peer and requests to one are limited per retry interval.

pub mod block;
pub mod bodies;
pub mod codec;
pub mod core;
pub mod crypto;
pub mod election;
mod error;
pub mod genesis;
pub mod mempool;
pub mod message;
pub mod models;
pub mod record;
pub mod replay;
pub mod segment;
pub mod sim;
pub mod state;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod tx;
pub mod types;
pub mod vote;

pub use error::{Error, Result};
