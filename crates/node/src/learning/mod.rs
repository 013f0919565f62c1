//! Federated learning without libtorch: what nodes need that hold data or models but do not train.
//!
//! | module | holds |
//! | --- | --- |
//! | [`data`] | CIFAR-10's files, checked |
//! | [`partition`] | which user holds which samples |
//! | [`wire`] | models as bytes |
//! | [`aggregate`] | Eq. 4 and 5 |
//! | [`learner`] | what trains, as a trait |
//! | [`checkpoint`] | models on disk |
//! | [`work`] | the thread on which a node trains, verifies and aggregates |
//! | [`federation`] | rounds without a network |

pub mod aggregate;
pub mod checkpoint;
pub mod data;
pub mod federation;
pub mod learner;
pub mod partition;
pub mod wire;
pub mod work;
