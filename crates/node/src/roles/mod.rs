//! What each kind of node does.
//!
//! | role | does |
//! | --- | --- |
//! | [`mbs`] | opens each round with the global model, and closes it (`muster`) with the models of the BSs that came in time |
//! | [`bs`] | answers each round with its model, to the MBS and along [`overlay`]'s trees to the other BSs; holds and trains twins, and hands them over |
//! | [`users`] | follows its users' [`state`] and holds their samples, for the BSs that have their twins |

pub mod bs;
mod gate;
mod held;
mod jobs;
mod letters;
pub mod mbs;
pub mod model;
mod muster;
pub mod overlay;
pub mod prediction;
pub mod state;
mod training;
mod twins;
pub mod users;
mod wanted;
