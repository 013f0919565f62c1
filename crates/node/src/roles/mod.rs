//! What each kind of node does.
//!
//! | role | does |
//! | --- | --- |
//! | [`mbs`] | opens each round with the global model, and closes it with the models of the BSs that came in time |
//! | [`bs`] | answers each round with its model, to the MBS and along [`overlay`]'s trees to the other BSs; holds twins |
//! | [`users`] | follows its users' [`state`] and sends it to the BS that holds their twins |

pub mod bs;
pub mod mbs;
pub mod model;
pub mod overlay;
pub mod prediction;
pub mod state;
mod training;
pub mod users;
