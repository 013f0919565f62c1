//! Federated learning without libtorch: what nodes need that hold data or models but do not train.
//!
//! | module | holds |
//! | --- | --- |
//! | [`data`] | CIFAR-10's files, checked |
//! | [`synthetic`] | the set that needs no download |
//! | [`source`] | where samples come from, and whose they are |
//! | [`partition`] | which user holds which samples |
//! | [`wire`] | models as bytes |
//! | [`aggregate`] | Eq. 4 and 5 |
//! | [`learner`] | what trains, as a trait |
//! | [`cnn`] | the paper's model from outside: names and shapes of its tensors |
//! | [`checkpoint`] | models on disk |
//! | [`work`] | the thread on which a node trains, verifies and aggregates |
//! | [`federation`] | rounds without a network |

pub mod aggregate;
pub mod checkpoint;
pub mod cnn;
pub mod data;
pub mod federation;
pub mod learner;
pub mod partition;
pub mod source;
pub mod synthetic;
pub mod wire;
pub mod work;

/// What every process that trains runs under, by name and value. oneDNN and the allocator read it before `main`.
///
/// oneDNN compiles its primitives for each batch size, seven or more for a step, and keeps 1024 by default: twins of many sizes would
/// make a process grow without bound. 32 hold those of a step of training and of judging.
///
/// A model, its gradient and its momentum are vectors of 8.6 MB, made anew for each twin, the gradient in each step. By default the
/// allocator has the kernel map and clear them each time, in a thread even more often: page faults in every step. So vectors of
/// less than 32 MB, the most that glibc takes for it, are kept, up to 256 MB of them, for all threads together; the data set, which is
/// larger and read but once, goes back to the kernel.
pub const ENVIRONMENT: [(&str, &str); 4] = [
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32"),
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "268435456"),
    ("MALLOC_ARENA_MAX", "1"),
];
