//! Digital twins: DT = (behaviour model, data, state) of a user, kept by one base station.
//!
//! | module | holds |
//! | --- | --- |
//! | [`ledger`] | who owns which twin, and how a twin changes its owner |
//! | [`fetch`] | how the bytes of a twin are fetched, piece by piece |
//! | [`ages`] | how old twins are |
//! | [`states`] | the stream of a user's states, at both of its ends |
//! | [`store`] | a base station's twins on disk |
//!
//! # How a twin moves
//! The association says which BS *should* have a twin; its *owner* is the BS that has it. Only the owner trains it. An owner that
//! should not be one any more hands over:
//!
//! ```text
//! owner                                 next owner
//!   │ ── Offer(epoch, manifest) ──────────▶ │   repeated until something comes back
//!   │ ◀───────────────── Want(offset) ───── │   up to a window of pieces are asked for at a time;
//!   │ ── Piece(offset) ───────────────────▶ │   what does not come is asked for again
//!   │ ◀───────────────── Have(epoch) ────── │   all is here, is what the manifest says, and is on disk
//!   ├ writes down that it has let go
//!   │ ── Grant(epoch, from_round) ────────▶ │   repeated until it is answered
//!   │                                       ├ writes down that it is the owner
//!   │ ◀───────────────── Taken(epoch) ───── │
//!   └ drops the data
//! ```
//!
//! Until it lets go the old owner goes on training the twin, so that a round in which twins move has all of them. Up to there it may
//! change its mind too, as when the association changes again or the next owner is down. From there on it is bound, and waits for
//! that one BS: a twin whose next owner dies between the Grant and its own note of it rests until that BS is back.
//!
//! # Why there are never two owners
//! A twin's epoch counts its owners. *A BS becomes owner in epoch e + 1 only by a Grant of the owner of epoch e*, who writes to disk to
//! whom it grants before it sends the first, never writes another name for that epoch, and is not the owner from then on. So every
//! epoch has one owner at most, by induction, and the owner of e is none any more when that of e + 1 becomes one. A message of an older
//! epoch changes nothing; each may be lost, repeated or overtaken, and either side may be killed at any point, since all that binds is
//! on disk before anybody hears of it.
//!
//! *Nor are there two in a round*, although BSs open rounds at different times: a Grant names the round after the last one that the old
//! owner has opened (it writes down that number before it trains), and the new owner trains the twin from that round on.
//!
//! # What holds back a BS that lies
//! The argument above is one about BSs that follow the protocol. Of one that does not, each BS believes only what fits what it knows:
//!
//! - It takes a Grant only from a BS that has offered it this twin for this epoch, and that it has told that it has all of it: that is on
//!   disk before it is said, so that it holds when either side was restarted or the association has changed. So the limits on offers
//!   hold for Grants.
//! - It listens to an Offer only for a twin that the association in force gives it and that it does not own. The Offer that follows
//!   the last owner it knows of (whom it gave the twin itself, or whom the plan did) must be that owner's. Later epochs are believed
//!   up to the number of times that BSs can have changed their minds since the run began.
//! - Offers and Grants of impossible size are refused, and those of all of a user's data whose digest is not the one that the twin's first
//!   owner put on the chain, where this process has seen that record.
//! - It confirms (Taken) only what it took from that BS for that epoch. A Grant that contradicts what it holds gets no answer, so that
//!   the BS that made it goes on holding the data.
//!
//! What is not held back: a BS that has the true data of a twin can offer it although it has given it to another, or grant it to two,
//! and so make a second owner where the association names one; and one that is rightly the next owner can say that it took a twin and
//! lose it. The old owner of a twin whose next owner believed such a lie is left waiting with a copy. Both owners then record models of one
//! twin on the chain, where it can be seen.

pub mod ages;
pub mod fetch;
pub mod ledger;
pub mod states;
pub mod store;
